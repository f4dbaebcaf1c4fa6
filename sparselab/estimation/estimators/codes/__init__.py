"""Sparse codes: inference for a dictionary, and learning it."""
