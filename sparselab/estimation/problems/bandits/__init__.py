"""Sparse linear bandits: their instances and environments."""
