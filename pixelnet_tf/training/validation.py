"""Validation of a training by whole volumes."""
