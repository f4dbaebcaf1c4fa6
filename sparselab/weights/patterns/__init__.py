"""Patterns of sparsity on one weight."""
