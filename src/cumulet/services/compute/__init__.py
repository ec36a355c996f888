"""Compute v2.1: servers, flavors, key pairs and what belongs to them. `declaration.py` states the service."""
