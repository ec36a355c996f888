"""Which devices hold what: swift's consistent-hash rings, their files and their builder."""
