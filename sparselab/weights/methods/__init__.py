"""Methods, one module for each family."""
