"""Rules that make one network of several."""
