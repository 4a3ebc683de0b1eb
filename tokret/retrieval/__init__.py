"""Descriptors to rankings, and rankings to the numbers that papers report."""
