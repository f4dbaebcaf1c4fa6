"""Transforms by name. Importing one costs no torch."""
