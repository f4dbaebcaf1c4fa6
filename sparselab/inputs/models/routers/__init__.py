"""Rules that say which experts of a mixture a token uses."""
