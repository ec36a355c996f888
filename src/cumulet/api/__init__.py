"""The HTTP side: declarations, the request pipeline, policy, versions. Knows no service."""
