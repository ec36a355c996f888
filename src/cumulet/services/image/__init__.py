"""Image v2 (upstream: glance): the disk images servers boot from, their data, and who may use them."""
