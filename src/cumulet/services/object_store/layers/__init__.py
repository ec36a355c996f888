"""What lies around the proxy's core, each feature in a file, in the order that pipeline.py gives."""
