"""Timings, and the rival they are taken against."""
