"""Which weights are kept: patterns, distributions, schedules, methods."""
