"""Papers' tables and sweeps."""
