"""Scores, tables, pictures, the report."""
