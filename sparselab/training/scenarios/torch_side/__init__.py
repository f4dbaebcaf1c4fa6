"""The parts of scenarios that need torch; nothing of it is imported while a cell is planned."""
