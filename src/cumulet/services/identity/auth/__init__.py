"""How people and programs show who they are, and the tokens they get for it."""
