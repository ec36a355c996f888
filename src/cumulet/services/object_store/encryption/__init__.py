"""Encryption at rest, in swift's scheme: keys from root secrets, AES-256 in counter mode, what is needed to decrypt beside what is
encrypted."""
