"""Kernels in C for the CPU, compiled where they run; whoever calls them has a plain path beside it."""

from sparselab.weights.kernels.native.build import LARGEST_GROUP, library, status

__all__ = ["LARGEST_GROUP", "library", "status"]
