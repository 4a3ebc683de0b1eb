"""The report of an evaluation: one HTML file without references to other files.

Names in it are escaped (`tokret.retrieval.html`), and photos are encoded again.
"""
