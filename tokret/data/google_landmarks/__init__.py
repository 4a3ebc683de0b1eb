"""Google Landmarks v2, from its hosts' lists and tars."""
