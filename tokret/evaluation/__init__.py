"""What eval.py measures: systems that extract descriptors, and benchmarks."""
