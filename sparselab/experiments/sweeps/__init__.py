"""Many cells from one command: which there are, who runs them, what became of them."""
