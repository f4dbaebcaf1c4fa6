"""The parts of searches that need torch; nothing of it is imported while a cell is planned."""
