"""Photos of your own: class folders, or a CSV of paths and labels."""
