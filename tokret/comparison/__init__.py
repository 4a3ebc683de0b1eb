"""Heads under one recipe: rates chosen on held-out classes, then several seeds."""
