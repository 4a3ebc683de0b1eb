"""Object storage: gs://, s3:// and what else fsspec knows, beside local folders."""
