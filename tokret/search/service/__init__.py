"""The service of an index: an HTTP API and a page (`tokret serve`)."""
