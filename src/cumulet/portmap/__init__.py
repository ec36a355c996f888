"""Which component of an OpenStack listens where, who must reach it, and proof of it: for this cloud and for any other."""
