"""Writing on from a prompt, one token after another, with a cache of keys and values: what a chat costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparselab.core.options import Options as AnyOptions
from sparselab.latency.workloads.workload import WORKLOADS, Workload


@WORKLOADS.register("decode")
class Decode(Workload):
    """A prompt of the held-out text is read token by token, then new tokens are written; only these are timed.

    Every kernel reads the same tokens, those that the dense network writes, so that all have the same cache.
    """

    engine = "decode"

    class Options(AnyOptions):
        prompt: int = Field(ge=1, description="tokens of the prompt, at least 1")
        new: int = Field(ge=2, description="tokens that are written and timed, at least 2")
        threads: int = Field(ge=1, le=64, description="1 to 64: of every kernel alike")
        precision: Literal["float32", "bfloat16"] = Field(description="float32 or bfloat16: of the weights")

    options: Options

    @property
    def half(self) -> bool:
        """True where weights are kept in bfloat16; sums are float32 always."""
        return self.options.precision != "float32"
