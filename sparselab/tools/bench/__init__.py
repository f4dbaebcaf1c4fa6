"""Measurements of the cost of sparsity: `make bench`. Every figure is a ratio of two things that took turns in one run."""
