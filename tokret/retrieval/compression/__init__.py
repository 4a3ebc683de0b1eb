"""Descriptors in fewer bytes: product codes, integers and half floats."""
