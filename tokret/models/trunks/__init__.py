"""Trunks: images -> feature maps."""
