"""Cumulet: the whole of OpenStack as one Python program."""

__version__ = "0.1.0"

__version__ = "0.1.0"
