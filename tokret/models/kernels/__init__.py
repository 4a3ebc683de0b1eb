"""Layers in the form that is fast on a platform, each with its measured gain."""
