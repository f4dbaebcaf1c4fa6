"""The group ``neuron`` in its place among the options of the model [no torch]."""

from __future__ import annotations

import contextlib
from typing import Any

from sparselab.core.errors import ConfigError
from sparselab.inputs.models.neuron import complete


def within(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the chosen neuron among the options of a model that has neurons, with every option of it.

    Id and record so have one form, however the neuron was said. Where the model has none, or an option is wrong, the config
    stays as it is, and the plan says so.
    """
    model, neuron = config.get("model"), config.get("neuron")
    if not isinstance(model, dict) or "neuron" not in model:
        return config
    said = model["neuron"] if neuron is None else neuron
    if isinstance(said, dict):
        with contextlib.suppress(ConfigError):
            said = complete(said)
    return {**config, "model": {**model, "neuron": said}, "neuron": None}
