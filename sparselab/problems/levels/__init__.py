"""Two-level problems: their functions, their oracles that count, and what is known of them in closed form."""
