"""Masks and products at memory speed."""
