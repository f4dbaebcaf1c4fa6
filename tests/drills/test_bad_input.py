"""Drill V1: bad requests are answered with exactly the lines of ``bad_requests.txt``, before anything slow is imported.

``refusals.py`` asks one other process all of them; some are asked again as a user would, through both entry points.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
from refusals import ROOT, ask, environment, furnish

from sparselab.config.members import groups
from sparselab.core.errors import WIDTH, did_you_mean

TABLE = Path(__file__).with_name("bad_requests.txt")
CONSOLE = [sys.executable, "-c", "from sparselab.cli.main import main; raise SystemExit(main())"]


def expected():
    """{arguments: lines} of the table."""
    members = groups()
    table = {}
    for block in re.split(r"^\$ ", TABLE.read_text(), flags=re.MULTILINE)[1:]:
        request, *lines = block.splitlines()
        lines = [line for line in lines if line and not line.startswith("# ")]
        filled = [
            re.sub(r"one of: <(\w+) (\d)>", lambda m: did_you_mean("", members[m[1]], int(m[2])), line)
            for line in lines
        ]
        table[tuple(shlex.split(request))] = filled
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("refusals")
    furnish(made)
    return made


@pytest.fixture(scope="module")
def told(folder):
    requests = list(expected())
    before = sorted(path.name for path in folder.iterdir())
    result = ask([("check", list(request)) for request in requests], folder)
    return before, result, dict(zip(requests, result["answers"], strict=True))


def test_v1_there_are_enough_of_them():
    assert len(expected()) >= 150


def test_v1_every_bad_request_gets_exactly_its_lines(told):
    table, answers = expected(), told[2]
    wrong = {
        shlex.join(request): answers[request]["lines"]
        for request in table
        if answers[request]["lines"] != table[request]
    }
    assert wrong == {}


def test_v1_exit_code_2_and_one_short_line_per_fault(told):
    for request, answer in told[2].items():
        assert answer["code"] == 2, (request, answer)
        assert answer["lines"] and (not answer["out"] or "keeps the hub off" in answer["lines"][0]), request
        for line in answer["lines"]:
            assert len(line) <= WIDTH and line.count(" — ") >= 1 and "Traceback" not in line, request


# Keys that nobody typed: defaults that do not go with what was typed, or lack something.
FORESEEN = {"model", "model.arch", "sparsity", "schedule", "distribution.layers", "targets", "trainer"} | {
    "dataset.problems",
    "dataset.val",
    "decoding.tokens",
    "engine.phase",
    "estimator.block",
    "estimator.designs",
    "estimator.validation",
    "loss.chunk_sparsification.length",
    "loss.distill.teacher",
    "metric.expert_sparsity.windows",
    "metric.mask_cosine.masks",
    "model.allocation.k",
    "optim.weight_decay",
    "search.unrolled",
    "trainer.batch_size",
}


def test_v1_names_the_key_as_typed(told):
    for request, answer in told[2].items():
        given = " ".join(request).replace('"', "").replace("'", "")
        for line in answer["lines"]:
            key = re.sub(r"\.\d+$", "", re.split(r"[:= \[]", line.lstrip("'"))[0])  # without the place in a list
            assert key in given or key in FORESEEN or key.rpartition(".")[2] in given, (request, line)


def test_v1_nothing_slow_is_imported_and_nothing_is_left(told):
    before, result, answers = told
    assert result["heavy"] == []
    assert result["left"] == before  # no runs folder, no outputs
    seconds = [answer["seconds"] for answer in answers.values()]
    print(f"\n{len(seconds)} requests: median {median(seconds):.3f} s, slowest {max(seconds):.3f} s")
    assert median(seconds) < 1


def test_v1_control_hydra_alone_says_something_else():
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from sparselab.config.members import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert compose("config", ["+sparsty=2:4"])["sparsty"] == "2:4"  # accepted
        with pytest.raises(HydraException) as error:
            compose("config", ["sparsty=2:4", "seed=-1"])
    assert "did you mean" not in str(error.value)


USERS = [
    (["sparsty=2:4"], ['sparsty: no such key — did you mean "sparsity"?']),
    (["sparsity=3:2", "seed=-1"], [
        "seed=-1: input should be greater than or equal to 0 — a whole number, at least 0",
        'sparsity=3:2: keeps 3 of every 2: N must be below M — for 2 of 3 write "2:3"',
    ]),
    (["sparsity=2:4", "runs_dir=a\nb"], ["runs_dir=a b: holds a line break or another control character — remove it"]),
    (["-m", "sparsity=2:4,3:2"], ['sparsity=3:2: keeps 3 of every 2: N must be below M — for 2 of 3 write "2:3"']),
]  # fmt: skip


@pytest.mark.parametrize("entry", ["run.py", "sparselab check"])
@pytest.mark.parametrize(("request_", "lines"), USERS)
def test_v1_as_a_user_types_it(entry, request_, lines, tmp_path):
    command = [sys.executable, str(ROOT / "run.py")] if entry == "run.py" else [*CONSOLE, "check"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *request_], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    print(f"\n{entry} {request_}: {time.perf_counter() - start:.2f} s")
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", lines)
    assert list(tmp_path.iterdir()) == []


def test_v1_run_and_check_say_the_same(folder):
    requests = [list(request) for request in expected() if not request[0].startswith("--")][::8]
    answers = ask([(command, request) for request in requests for command in ("run", "check")], folder)["answers"]
    assert [answer["lines"] for answer in answers[::2]] == [answer["lines"] for answer in answers[1::2]]
    assert {answer["code"] for answer in answers} == {2}


def test_v1_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path):
    (answer,) = ask([("check", ["sparsity=3:2", "debug=true"])], tmp_path)["answers"]
    assert answer["code"] == 2
    assert answer["lines"][0] == "Traceback (most recent call last):"
    assert answer["lines"][-1].startswith("sparsity=3:2: keeps 3 of every 2")


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a CUDA device")
def test_v1_cuda_where_there_is_none(tmp_path):
    requests = [["sparsity=2:4", "trainer.accelerator=gpu"], ["sparsity=2:4", "tier=gpu"]]
    line = "trainer.accelerator=gpu: there is no CUDA device here — write trainer.accelerator=cpu or auto"
    answers = ask([("check", request) for request in requests], tmp_path)["answers"]
    assert [answer["lines"] for answer in answers] == [[line], [line]]
