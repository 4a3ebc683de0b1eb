"""One query to an index, as `tokret query` makes it."""

from tokret.search.querying import Query, SearchOptions, search_photos
from tokret.search.searcher import Searcher


def query_index(index, photo, box=None, top=20, load=None, root=None):
    searcher = Searcher(index, load, root=root, hold=False)
    (results,) = search_photos(searcher, [Query((photo,), (), box)], SearchOptions(top))
    return results
