"""Systems measured on benchmarks: the rooms of eval.py.

It may import data, models, retrieval and the restoring of training; nothing imports it
but the programs.
"""
