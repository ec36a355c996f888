"""Cumulet: the whole of OpenStack as one Python program."""
