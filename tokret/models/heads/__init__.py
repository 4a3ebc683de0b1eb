"""Heads: feature maps -> descriptors."""
