"""The config: one typed tree of dataclasses, loaded and checked once."""
