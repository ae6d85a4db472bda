"""Contestants that train on the same cases, are decided by the same rule and scored by `evaluate`.

`scripts/head_to_head.py` and `scripts/ablations.py` stand on it.
"""
