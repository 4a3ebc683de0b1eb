"""Exact search by dot products, one block of the database at a time.

`ranks.count_ranks` and `top_k.top_k` give the order of a stable sort by falling scores:
of equal scores the smaller index comes first, and a row of NaN, an image without a
descriptor, comes after all others. Nothing is sorted as a whole, so the database may be
larger than any device's memory.

Float32 products of one pair may differ in the last bit between programs and between
block shapes. Therefore one program computes the scores of every block, the last block
is padded to the shape of the others, and an item's own score is read from its block's
product: compared scores always come from the same program.

The blocks are spread over devices, of one process or several. Each gives counts and
short lists, which are merged at the end: the result does not depend on the devices as
long as these are of one kind.
"""
