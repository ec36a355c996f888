"""Identity (upstream: keystone): users, projects and domains, roles and who holds them where, tokens, the catalogue."""
