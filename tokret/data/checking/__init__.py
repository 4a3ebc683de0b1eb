"""Checks photos for defects, before or after they are prepared."""
