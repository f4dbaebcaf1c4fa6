"""Loggers beside the record."""
