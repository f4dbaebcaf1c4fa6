"""Proximal steps, found by :data:`sparselab.training.optim.prox.PROXES`."""
