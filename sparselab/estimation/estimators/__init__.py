"""Estimators, one module for each family."""
