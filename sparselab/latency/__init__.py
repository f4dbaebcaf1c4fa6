"""How long sparse products take."""
