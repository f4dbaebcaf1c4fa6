"""Rules that say which features of a sparse auto-encoder fire."""
