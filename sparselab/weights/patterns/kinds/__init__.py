"""Patterns, one file each: registered in ``sparselab.core.sparsity.PATTERNS``."""
