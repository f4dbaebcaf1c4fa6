"""Removals, one file each. Every module here is imported when a removal is looked up, so none imports torch."""
