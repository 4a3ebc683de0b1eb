"""Files: atomic writes, locks, weight files, descriptors, the restricted pickle."""
