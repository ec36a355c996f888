"""Encryption at rest, in swift's scheme: keys from root secrets, AES-256 in counter mode, and beside what is encrypted what is
needed to decrypt it."""
