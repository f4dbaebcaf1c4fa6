"""Datasets, and batches that a stopped run finds again. Only `dataset.py` and `sets/` are imported for planning."""
