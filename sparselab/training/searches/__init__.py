"""Searches of architectures, one file each. Every module here is imported when one is looked up, so none imports torch."""
