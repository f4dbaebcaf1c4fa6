"""Solvers, one module for each kind of environment."""
