"""Loops by which a network writes a text, token after token."""
