"""The S3 API, on the same port."""
