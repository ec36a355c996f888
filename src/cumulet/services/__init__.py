"""The services of the cloud, one folder each, named by service type."""
