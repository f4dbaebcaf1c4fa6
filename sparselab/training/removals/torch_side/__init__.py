"""The parts of removals that need torch; nothing of it is imported while a cell is planned."""
