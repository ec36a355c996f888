"""Firewall rules for a host of the cloud, made from the flows: what must reach it, from which networks, and nothing else."""
