"""What a machine computes in hardware: read as it says it, never asked of torch."""

# ruff: noqa: N802 (the names are NVML's)

from __future__ import annotations

import os

import pytest

from sparselab.spec import processor
from sparselab.spec.faults import Refused
from sparselab.spec.processor import compute_capability, decided, instructions, native_bf16, processor_flags

FLAGS = "fpu avx2 avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_fp16 amx_bf16 amx_fp16"

pytestmark = pytest.mark.instructions


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch):
    for key in (processor.ASKED, "ATEN_CPU_CAPABILITY", *processor.CAPS):
        monkeypatch.delenv(key, raising=False)


def a_machine(monkeypatch, flags, gpus=0, capability=None):
    monkeypatch.setattr(processor, "processor_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(processor, "gpus", lambda: gpus)
    monkeypatch.setattr(processor, "compute_capability", lambda: capability)


def test_flags_are_read_as_linux_has_them(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert processor_flags(str(file)) == {"fpu", "avx2", "amx_bf16"}
    assert processor_flags(str(tmp_path / "none")) == frozenset()


@pytest.mark.parametrize(
    ("cap", "gone"),
    [
        ("AVX2", "avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_fp16 amx_bf16 amx_fp16"),
        ("avx2", "avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_fp16 amx_bf16 amx_fp16"),
        ("AVX512_CORE", "avx512_bf16 avx512_fp16 amx_bf16 amx_fp16"),
        ("AVX512_CORE_BF16", "avx512_fp16 amx_bf16 amx_fp16"),
        ("AVX512_CORE_FP16", "amx_bf16 amx_fp16"),
        ("AVX512_CORE_AMX", "amx_fp16"),
        ("ALL", ""),
        ("no such set", ""),
    ],
)
def test_what_onednn_may_not_use_is_not_there(cap, gone, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"flags\t\t: {FLAGS}\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert set(FLAGS.split()) - processor_flags(str(file)) == set(gone.split())


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (FLAGS, "AMX_BF16"),
        ("avx2 avx512f avx512bw avx512dq avx512vl avx512_bf16", "AVX512_BF16"),
        ("avx2 avx512f avx512bw avx512dq avx512vl", "AVX512"),
        ("avx2 avx512f", "AVX2"),
        ("sse4_1", "SSE"),
        ("", ""),
    ],
)
def test_instruction_sets_have_a_name(flags, name, monkeypatch):
    a_machine(monkeypatch, flags)
    assert instructions() == name
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert instructions() == f"{name}, ATen default"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert (instructions() == name) is (name == "AVX2")


@pytest.mark.parametrize(
    ("flags", "gpus", "capability", "accelerator", "native"),
    [
        ("avx512_bf16", 0, None, "auto", True),
        ("avx2", 0, None, "auto", False),
        ("avx2", 0, None, "cpu", False),
        ("", 0, None, "auto", False),
        ("avx2", 1, (9, 0), "auto", True),
        ("avx2", 1, (8, 0), "gpu", True),
        ("avx2", 1, (9, 0), "cpu", False),
        ("amx_bf16", 1, (7, 5), "auto", False),
        ("amx_bf16", 1, (7, 5), "cpu", True),
        ("amx_bf16", 1, None, "auto", False),
    ],
)
def test_what_a_run_computes_on_decides(flags, gpus, capability, accelerator, native, monkeypatch):
    a_machine(monkeypatch, flags, gpus, capability)
    assert native_bf16(accelerator) is native


def test_a_gpu_that_is_hidden_is_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert processor.gpus() == 0


def test_what_a_sweep_decided_holds_in_its_jobs(monkeypatch):
    a_machine(monkeypatch, "avx512_bf16", 1, (7, 5))
    with decided():
        assert os.environ[processor.ASKED] == "cpu"
        a_machine(monkeypatch, "avx2", 1, (9, 0))  # where a job runs
        assert native_bf16("cpu") and not native_bf16("auto")
        with decided():  # a sweep in a job
            assert os.environ[processor.ASKED] == "cpu"
    assert processor.ASKED not in os.environ
    a_machine(monkeypatch, "avx2")
    with decided():
        assert os.environ[processor.ASKED] == "none"


def test_a_wrong_answer_is_refused(monkeypatch):
    monkeypatch.setenv(processor.ASKED, "yes")
    with pytest.raises(Refused, match="SPARSELAB_BF16=yes: is not cpu, gpu"):
        native_bf16("cpu")


class FakeNvml:
    """The five calls that are made, as NVML answers them; ``broken`` names one that fails."""

    def __init__(self, *capabilities, broken=""):
        self.capabilities, self.broken, self.shut = capabilities, broken, 0

    def nvmlInit_v2(self):
        return int(self.broken == "init")

    def nvmlShutdown(self):
        self.shut += 1

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.capabilities)
        return int(self.broken == "count")

    def nvmlDeviceGetHandleByIndex_v2(self, number, device):
        device._obj.value = number + 1
        return int(self.broken == "handle")

    def nvmlDeviceGetCudaComputeCapability(self, device, major, minor):
        major._obj.value, minor._obj.value = self.capabilities[device.value - 1]
        return int(self.broken == "capability")


def test_the_least_able_gpu_counts():
    library = FakeNvml((9, 0), (7, 5), (8, 6))
    assert compute_capability(library) == (7, 5) and library.shut == 1
    assert compute_capability(FakeNvml()) is None


@pytest.mark.parametrize("broken", ["init", "count", "handle", "capability"])
def test_a_driver_that_does_not_answer_says_nothing(broken):
    library = FakeNvml((9, 0), broken=broken)
    assert compute_capability(library) is None and library.shut == (broken != "init")
