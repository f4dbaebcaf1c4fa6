"""One training run: batches, updates, evaluations, checkpoints."""
