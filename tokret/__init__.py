"""tokret: token-based image retrieval in JAX (AAAI 2022, arXiv 2112.06159)."""

__version__ = "0.2.0"
