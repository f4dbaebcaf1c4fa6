"""Scenarios, one file each. Every module here is imported when a scenario is looked up, so none imports torch."""
