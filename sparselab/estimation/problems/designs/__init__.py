"""Fixed designs with a planted sparse parameter on them."""
