"""Optimisers that torch does not have. Imports torch, so the registry does not look in here."""
