"""Ways to adapt a given network to other data: what of it trains, and what is put around it. Importing one costs no torch."""
