"""The report of an evaluation: one page that needs nothing but itself.

File, class and dataset names come from others: they are escaped wherever they are
written, and photos are decoded and encoded anew.
"""
