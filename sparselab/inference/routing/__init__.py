"""Rules for which tokens go through which blocks."""
