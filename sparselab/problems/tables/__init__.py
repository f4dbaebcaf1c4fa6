"""Samples of tables with held-out rows."""
