"""What other services may ask of object storage: nothing yet but its API."""
