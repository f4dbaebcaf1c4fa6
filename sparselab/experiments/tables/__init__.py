"""A paper's table as data: its grid, its claims, and renderings made from records alone. Imports no torch."""
