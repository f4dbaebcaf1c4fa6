"""Runs in a folder as a person looks at them: which there are, how far they are, and how they compare. Imports no torch."""
