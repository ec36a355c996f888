"""Proof between hosts: small responders and probers on each of them try every connection that the cloud needs."""
