"""Further scores of a finished network. Importing one costs no torch."""
