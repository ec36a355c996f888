"""Placement: what hosts have to give, and who has taken it (the API of placement)."""
