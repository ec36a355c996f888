"""Object storage: swift's API, and the account, container and object servers behind it."""
