"""Mutual information of two variables, by kernel densities on a grid or by histograms."""
