"""Kernels that decode: dense ones, one that skips inputs, one whose weights are coded [no torch]."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue, RunFailed
from sparselab.core.native_build import compiler
from sparselab.core.options import Options
from sparselab.latency.kernels.kernel import KERNELS, Kernel

if TYPE_CHECKING:
    from sparselab.latency.kernels.decoding.skips import Skips
    from sparselab.latency.networks.network import Network


@dataclass(frozen=True)
class Setting:
    """The setting that all kernels of a cell share. longest: positions of the cache."""

    half: bool
    threads: int
    longest: int


class Decodes(Kernel):
    """Override :meth:`decoder`.

    skips: whether inputs are skipped, by the cell's sparsity. prunes: whether the cell's sparsity is of the weights. own: why a
    precision or a network does not suit it.
    """

    sparse = False
    engine: ClassVar[str] = "decode"
    skips: ClassVar[bool] = False
    prunes: ClassVar[bool] = False

    def unfit(self, half: bool) -> str | None:
        """Why it does not take this precision, None where it does."""
        return None

    def decoder(self, network: Network, skips: Skips, setting: Setting) -> Any:
        """Bind a network once.

        Args:
            network: taken apart
            skips: thresholds of its inputs
            setting: precision, threads and room

        Returns:
            What has ``step(token, position)``, ``replaying(inputs)``, ``replay()`` and ``weight_bytes``
            (:class:`~sparselab.latency.kernels.decoding.decoder.Decoder`).
        """
        raise NotImplementedError


class NativeOptions(Options):
    """Base of the native ones."""

    isa: Literal["auto", "avx512", "avx2"] = Field(description="auto, avx512 or avx2")


class NativeDecodes(Decodes):
    """A kernel of decode.c, or torch's products where it cannot be compiled."""

    coded: ClassVar[bool] = False
    Options = NativeOptions
    options: NativeOptions

    def decoder(self, network: Network, skips: Skips, setting: Setting) -> Any:
        from sparselab.core.native_build import Unavailable
        from sparselab.latency.kernels.decoding.decoder import Decoder
        from sparselab.latency.kernels.decoding.plain import TorchDecoder

        try:
            return Decoder(network, skips, setting.half, self.coded, setting.threads, self.options.isa, setting.longest)
        except Unavailable as why:
            if self.options.isa != "auto" and compiler():  # torch's products would stand under its name
                raise RunFailed(f"kernel.isa={self.options.isa}: {why} — write kernel.isa=auto") from None
            return TorchDecoder(network, skips, setting.half, setting.longest)


@KERNELS.register("rows")
class Rows(NativeDecodes):
    """Dense: every row of every matrix times the input, in the order in which it lies in memory."""

    def issues(self) -> list[Issue]:
        fix = "install gcc, or write torch_decode"
        return [] if compiler() else [Issue("kernel=rows", "no C compiler is here", fix)]


@KERNELS.register("columns")
class Columns(NativeDecodes):
    """Inputs that are small are skipped, and the weights that they meet are not read (they stand input by input).

    skip: ``inputs``: of every matrix, by one threshold for each place that is read (TEAL's); ``gate``: entries of the activated
    gate, by a threshold of each channel (CHESS's), so that rows of ``up`` and inputs of ``down`` are skipped;
    ``gate_and_attention``: those, and inputs of ``q`` and ``o``.
    """

    sparse = True
    skips = True

    class Options(NativeOptions):
        skip: Literal["inputs", "gate", "gate_and_attention"] = Field(description="inputs, gate or gate_and_attention")

    options: Options


@KERNELS.register("coded")
class Coded(NativeDecodes):
    """Weights that are zero are not stored: one bit for each weight, and the values of the others; 2:4 alike."""

    sparse = True
    prunes = True
    coded = True


@KERNELS.register("torch_decode")
class TorchDecode(Decodes):
    """Dense products of torch in a loop with little Python, matrices that read the same input as one."""

    def decoder(self, network: Network, skips: Skips, setting: Setting) -> Any:
        from sparselab.latency.kernels.decoding.plain import TorchDecoder

        return TorchDecoder(network, None, setting.half, setting.longest)


@KERNELS.register("onnx_decode")
class OnnxDecode(Decodes):
    """One graph of ONNX Runtime for a token, with its fused attention on a cache that stays where it is."""

    def issues(self) -> list[Issue]:
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        fix = f"pip install {' '.join(missing)}, or leave it out"
        return [Issue("kernel=onnx_decode", f"{' and '.join(missing)} cannot be imported", fix)] if missing else []

    def unfit(self, half: bool) -> str | None:
        return "has no bfloat16 products on a CPU" if half else None

    def decoder(self, network: Network, skips: Skips, setting: Setting) -> Any:
        from sparselab.latency.kernels.decoding.onnx import OnnxDecoder, misfit

        odd = misfit(network)
        if odd is not None:
            raise RunFailed(f"engine.against: {odd} — leave it out")
        return OnnxDecoder(network, setting.threads, setting.longest)
