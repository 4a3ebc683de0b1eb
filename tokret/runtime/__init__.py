"""Devices and processes: cluster, compiler options, caches, memory."""
