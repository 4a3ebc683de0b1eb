"""Comparisons with PyTorch, plain Flax, Pillow, faiss and NumPy; tables of the docs."""
