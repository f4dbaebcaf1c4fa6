"""Optimiser recipes for tests that count by hand."""

from sparselab.training.optim.optim import OPTIMS

PLAIN = {"weight_decay": 0.0, "decay_norm_and_bias": False, "warmup": 0.0, "min_factor": 0.0}


def plain(name="sgd", **options):
    """A recipe without weight decay, warm-up and Nesterov's momentum; a learning rate of 0.1."""
    cls = OPTIMS[name]
    own = {"nesterov": False} if name == "sgd" else {}
    return cls(cls.Options(**{"lr": 0.1, **PLAIN, **own, **options}))
