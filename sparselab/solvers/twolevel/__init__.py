"""Solvers of two-level problems: penalty methods and what they are compared with."""
