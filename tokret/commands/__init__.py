"""The commands of `tokret`: one module each, imported only when it is chosen."""
