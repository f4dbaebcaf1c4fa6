"""Finished sparse networks in the forms that sparse products read. Imports torch."""
