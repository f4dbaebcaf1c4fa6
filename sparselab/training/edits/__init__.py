"""Changes of a network in one go, without an optimiser: what approximate unlearning does instead of training."""
