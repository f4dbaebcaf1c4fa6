"""How a cell is planned and run."""
