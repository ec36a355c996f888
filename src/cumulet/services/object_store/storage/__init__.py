"""Storage nodes: objects in files, accounts and containers in SQLite, and what keeps copies equal."""
