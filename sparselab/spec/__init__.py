"""What a cell is, before anything runs: parsing, schemas, plans and messages. Imports no torch."""
