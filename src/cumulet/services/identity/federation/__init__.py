"""Users of other organisations: identity providers, what their assertions mean here, and the logins that rest on them."""
