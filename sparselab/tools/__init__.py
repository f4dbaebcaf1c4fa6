"""Finished networks in sparse forms, and benchmarks."""
