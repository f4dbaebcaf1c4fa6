"""Estimators of a directed acyclic graph."""
