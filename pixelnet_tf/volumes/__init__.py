"""Volumes: reading and writing with geometry, N4, normalisation, slicing and its undoing."""
