"""The hardware's abilities: its processor as Linux and oneDNN name things, its GPUs as NVML does [no torch]."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparselab.core.errors import refuse
from sparselab.core.memo import once

NATIVE = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions that multiply bf16; a processor with neither emulates it."""
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
"""AVX-512 in the sense of oneDNN and torch: all four."""
LSTM_NEEDS = {"bf16": AVX512, "16": frozenset({"avx512_fp16"})}
"""Instructions for an LSTM in that precision: torch leaves it to oneDNN, which emulates bf16 with AVX-512 only."""
AMPERE = (8, 0)
"""Compute capability of the first NVIDIA GPUs that multiply bf16."""
ASKED = "SPARSELAB_BF16"
"""Environment variable: what is taken for native here (``cpu``, ``gpu``, ``cpu,gpu`` or ``none``), in place of a look.

A sweep sets it for its jobs: what ``auto`` stands for was decided where the sweep was planned.
"""
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# The highest instruction set that oneDNN may use, to what of a processor's flags it then does without.
_WITHOUT = {
    **dict.fromkeys(("AVX512_CORE_AMX", "AVX10_1_512_AMX"), ("amx_fp16",)),
    **dict.fromkeys(("AVX512_CORE_FP16", "AVX10_1_512"), ("amx",)),
    "AVX512_CORE_BF16": ("amx", "avx512_fp16"),
    **dict.fromkeys(("AVX512_CORE_VNNI", "AVX512_CORE"), ("amx", "avx512_fp16", "avx512_bf16")),
    **dict.fromkeys(("AVX2_VNNI_2", "AVX2_VNNI", "AVX2", "AVX", "SSE41"), ("amx", "avx512")),
}


def processor_flags(file: str = "/proc/cpuinfo") -> frozenset[str]:
    """Return the flags of the first processor, as Linux names them; empty where that is not known (no Linux, no x86).

    Without what ``ONEDNN_MAX_CPU_ISA`` keeps from oneDNN, which multiplies bf16 for torch.
    """
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return frozenset()
    words = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    cap = next((os.environ[key] for key in CAPS if key in os.environ), "").upper()
    return frozenset(word for word in words if not word.startswith(_WITHOUT.get(cap, ())))


def flags() -> frozenset[str]:
    """:func:`processor_flags`, once in a pass."""
    return once("processor flags", lambda: processor_flags())


def instructions() -> str:
    """The instruction sets that decide the bits of a product: oneDNN's highest, and torch's own where one is asked for.

    ``AVX512_BF16``, ``AVX2`` and so on; empty where nothing is known.
    """
    found = flags()
    levels = [
        ("amx_bf16" in found, "AMX_BF16"),
        ("avx512_bf16" in found, "AVX512_BF16"),
        (found >= AVX512, "AVX512"),
        ("avx2" in found, "AVX2"),
        (bool(found), "SSE"),
    ]
    name = next((name for there, name in levels if there), "")
    own = os.environ.get("ATEN_CPU_CAPABILITY")
    return f"{name}, ATen {own}" if own and own.upper() != name else name


def gpus() -> int:
    """CUDA devices that a run may use, without asking CUDA: 0 where ``CUDA_VISIBLE_DEVICES`` hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return 0
    return once("gpus", lambda: len(list(Path("/dev").glob("nvidia[0-9]*"))))


def uses_gpu(accelerator: str) -> bool:
    """True where ``trainer.accelerator`` puts a run of this machine on a GPU."""
    return accelerator == "gpu" or (accelerator == "auto" and gpus() > 0)


def native_bf16(accelerator: str) -> bool:
    """True where what a run computes on, under ``trainer.accelerator``, multiplies bf16 in hardware. Raises ConfigError."""
    device = "gpu" if uses_gpu(accelerator) else "cpu"
    if (asked := os.environ.get(ASKED)) is not None:
        words = asked.split(",")
        if not set(words) <= {"cpu", "gpu", "none"}:
            refuse(f"{ASKED}={asked[:20]}", "is not cpu, gpu, cpu,gpu or none", "correct the environment, or unset it")
        return device in words
    if device == "cpu":
        return bool(flags() & NATIVE)
    least = once("compute capability", lambda: compute_capability())
    return least is not None and least >= AMPERE


@contextmanager
def decided() -> Iterator[None]:
    """Inside, processes that are started take for native what is native here."""
    if ASKED in os.environ:
        yield
        return
    there = [device for device, accelerator in (("cpu", "cpu"), ("gpu", "gpu")) if native_bf16(accelerator)]
    os.environ[ASKED] = ",".join(there) or "none"
    try:
        yield
    finally:
        os.environ.pop(ASKED, None)


def compute_capability(library: Any = None) -> tuple[int, int] | None:
    """(major, minor) of the least able GPU, from NVML, which starts no CUDA context; None where it does not say.

    library: NVML itself; by default the driver's.
    """
    try:
        nvml = library or ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2():
        return None
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return None
        found = []
        for number in range(count.value):
            device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
            if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)):
                return None
            if nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)):
                return None
            found.append((major.value, minor.value))
        return min(found, default=None)
    finally:
        nvml.nvmlShutdown()
