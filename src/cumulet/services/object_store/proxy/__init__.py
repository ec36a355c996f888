"""The proxy: accounts, containers and objects for clients; it finds the nodes that hold them."""
