"""Networking: networks, subnets, ports, routers, floating IPs and security groups (the API of neutron, v2.0)."""
