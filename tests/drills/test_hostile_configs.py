"""Drill H1, configs: what comes with a config from a stranger runs nothing, reads no secret and costs no memory.

Each case is a folder for ``--config-dir`` or a few overrides. All are tried in one other process, through both entry
points, with and without ``-m``, where an audit hook reports every command, process, socket and opening for writing.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from refusals import ROOT, environment

from sparselab.config.user_configs import scan
from sparselab.core.errors import WIDTH, ConfigError

WATCH = r"""
import contextlib, io, json, os, sys, traceback
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from sparselab.cli.application import main as run
from sparselab.cli.main import main as console
from sparselab.config.members import launching

WATCHED = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.remove", "os.rename",
           "os.mkdir", "subprocess.Popen", "socket.", "ctypes.dlopen", "webbrowser.open", "shutil.")
events = []
armed = False


def hook(event, arguments):
    if not armed:
        return
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = any(c in (mode or "r") for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and arguments[0] != os.devnull:
            events.append(f"open {arguments[0]} to write")
    elif event.startswith(WATCHED) and event != "socket.gethostname":
        events.append(f"{event} {arguments!r}"[:100])


def peak():
    return int(Path("/proc/self/status").read_text().split("VmPeak:")[1].split()[0]) * 1024


cases = json.load(sys.stdin)
launching([], ["hydra/launcher=joblib"], None)  # what is imported late is imported now
with contextlib.redirect_stdout(io.StringIO()):
    console(["check", "sparsity=2:4", "dataset.val=100"])
sys.addaudithook(hook)
answers = {}
for name, arguments in cases.items():
    told = []
    for entry, flags in ((run, []), (run, ["-m"]), (console, ["check"]), (console, ["check", "-m"])):
        out, err, events, before = io.StringIO(), io.StringIO(), [], peak()
        armed = True
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = entry([*flags, *arguments])
            except BaseException:
                code = traceback.format_exc()
        armed = False
        printed = out.getvalue() + err.getvalue()
        told.append({"code": code, "lines": err.getvalue().splitlines(), "events": events, "bytes": peak() - before,
                     "secret": "hunter2" in printed})
    answers[name] = told
print(json.dumps(answers))
"""

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
EVIL = "_target_: os.system\ncommand: touch canary\n"
METHOD = "method/evil.yaml"
PLUGIN = "import os; os.system('touch canary')\n"
# What a file under --config-dir may hold; the method "evil" of it is then asked for.
FILES = {
    "target": {METHOD: EVIL},
    "target nested": {METHOD: "name: srste\nlambda_w: {_target_: os.system, _args_: [touch canary]}\n"},
    "target in quotes": {METHOD: '"_target_": "os.system"\n'},
    "target escaped": {METHOD: '"\\x5ftarget_": os.system\n'},
    "target in a folded key": {METHOD: "? >-\n  _target_\n: os.system\n"},
    "target in JSON": {METHOD: '{"name": "srste", "lambda_w": {"_target_": "os.system"}}'},
    "target in another group": {METHOD: "name: srste\nlambda_w: 0.1\n", "optim/evil.yaml": EVIL},
    "python tag": {METHOD: "!!python/object/apply:os.system [touch canary]\n"},
    "python tag on a value": {METHOD: "name: srste\nlambda_w: !!python/name:os.system\n"},
    "tag with a prefix": {METHOD: "%TAG ! tag:yaml.org,2002:python/\n---\nname: !name:os.system x\n"},
    "alias bomb": {METHOD: BOMB},
    "alias of itself": {METHOD: "a: &a [*a]\n"},
    "merge key": {METHOD: "base: &b {name: srste}\nname: x\n<<: *b\n"},
    "secret": {METHOD: "name: srste\nlambda_w: ${oc.env:WANDB_API_KEY}\n"},
    "secret in quotes": {METHOD: 'name: "\\x24{oc.env:WANDB_API_KEY}"\n'},
    "secret in two steps": {METHOD: "a: oc\nname: ${${a}.env:WANDB_API_KEY}\n"},
    "secret from a file": {METHOD: "name: ${oc.decode:${oc.env:WANDB_API_KEY}}\n"},
    "unquoted pattern": {METHOD: "# @package _global_\nsparsity: 2:4\n"},
    "hydra subtree": {METHOD: "# @package _global_\nhydra:\n  job_logging: {handlers: {x: {(): os.system}}}\n"},
    "hydra package": {METHOD: "# @package hydra.job_logging\nhandlers: {x: {(): os.system}}\n"},
    "hydra defaults": {METHOD: "defaults:\n  - override /hydra/job_logging: evil\nname: srste\n"},
    "hydra package in defaults": {METHOD: "defaults:\n  - /optim@hydra.job_logging: adamw\nname: srste\n"},
    "hydra folder": {"hydra/launcher/evil.yaml": "x: 1\n", METHOD: "name: srste\nlambda_w: 0.1\n"},
    "search path": {METHOD: "# @package _global_\nhydra.searchpath: [file:///tmp]\n"},
    "deep": {METHOD: "a: " + "[" * 5000 + "]" * 5000},
    "deep blocks": {METHOD: "".join(f"{' ' * i}a:\n" for i in range(200))},
    "huge": {METHOD: "a: 1\n" * 10**6},
    "not UTF-8": {METHOD: b"name: srst\xe9\n"},
    "UTF-16": {METHOD: "name: srste\n".encode("utf-16")},
    "binary": {METHOD: bytes(range(256))},
    "control characters": {METHOD: "name: \x07\x1b[2J\n"},
    "not YAML": {METHOD: "a: [1\nb: }{"},
    "a list": {METHOD: "- name\n- srste\n"},
    "a word": {METHOD: "srste\n"},
    "twice the same key": {METHOD: "name: srste\nname: ste\n"},
    "two documents": {METHOD: "name: srste\n---\nname: ste\n"},
    "a date": {METHOD: "name: srste\nlambda_w: 2026-01-01\n"},
    "no name": {METHOD: "lambda_w: 0.1\n"},
    "name of no class": {METHOD: "name: os.system\n"},
    "name that is a path": {METHOD: "name: ../../sparselab/methods/srste\n"},
    "keys of the top level": {METHOD: "# @package _global_\nrun_this: os.system\n"},
    "a plug-in of the top level": {METHOD: "# @package _global_\nplugins: [evil.py]\n", "evil.py": PLUGIN},
    "a plug-in of a method": {METHOD: "name: srste\nplugins: [evil.py]\n", "evil.py": PLUGIN},
    "missing default": {METHOD: "defaults: [nowhere]\nname: srste\n"},
    "default beyond the folder": {METHOD: "defaults: [../../../../etc/passwd]\nname: srste\n"},
    "default of itself": {METHOD: "defaults: [evil]\nname: srste\n"},
    "newline in a path": {METHOD: '# @package _global_\nruns_dir: "a\\nb"\n'},
    "NUL in a path": {METHOD: '# @package _global_\nruns_dir: "a\\0b"\n'},
}
OVERRIDES = {
    "target": ["method._target_=os.system"],
    "target added": ["+method._target_=os.system"],
    "target by force": ["++optim._target_=os.system"],
    "target in a mapping": ["dataset.augment={_target_: os.system}"],
    "target in a list": ["targets.include=[{_target_: os.system}]"],
    "hydra target": ["hydra.launcher._target_=os.system"],
    "hydra callback": ["+hydra.callbacks.x={_target_: os.system}"],
    "hydra callback without a target": ["+hydra.callbacks.x.y=1"],
    "hydra logging": ["hydra.job_logging.handlers.console.class=os.system"],
    "hydra logging factory": ["+hydra.job_logging.handlers.x={(): os.system}"],
    "hydra search path": ["hydra.searchpath=[file:///tmp]"],
    "hydra environment": ["hydra.job.env_set.LD_PRELOAD=/tmp/x.so"],
    "hydra run dir": ["hydra.run.dir=/tmp/x"],
    "hydra sweeper": ["hydra/sweeper=evil"],
    "secret": ["data_dir=${oc.env:WANDB_API_KEY}"],
    "secret in a mapping": ["dataset.augment={crop: '${oc.env:WANDB_API_KEY}'}"],
    "another config": ["--config-path=/tmp", "--config-name=evil"],
    "shell completion": ["--shell-completion", "install=bash"],
    "rerun": ["--experimental-rerun=/tmp/config.pickle"],
    "climbing member": ["method=../../../../tmp/evil"],
    "absolute member": ["method=/tmp/evil"],
    "package": ["method@hydra.launcher=srste"],
    "long": ["seed=" + "1" * 100_000],
    "deep": ["targets.include=" + "[" * 900 + "]" * 900],
    "wide sweep of nothing": ["seed=interval(0,1)"],
}


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    root = tmp_path_factory.mktemp("configs")
    cases = {f"override: {name}": ["sparsity=2:4", *words] for name, words in OVERRIDES.items()}
    for number, (name, files) in enumerate(FILES.items()):
        write(root / str(number), files)
        cases[f"file: {name}"] = [f"--config-dir={root / str(number)}", "method=evil", "sparsity=2:4"]
    here = tmp_path_factory.mktemp("here")
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(ROOT)], input=json.dumps(cases), capture_output=True, text=True, cwd=here,
        env=environment(WANDB_API_KEY="hunter2"), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), list(here.iterdir())


def test_h1_nothing_runs_and_every_answer_is_short_lines(answers):
    found, left = answers
    assert len(found) >= 70
    wrong = {}
    for name, tries in found.items():
        for told in tries:
            lines = told["lines"]
            fine = told["code"] == 2 and lines and all(len(line) <= WIDTH and " — " in line for line in lines)
            if not fine or told["events"] or told["secret"] or told["bytes"] > 2**28:
                wrong[name] = told
    assert wrong == {}
    assert left == []


TOLD = {
    "target": "evil.yaml:1: classes cannot be named in a config — use name: with a registered member",
    "alias bomb": "evil.yaml:1: YAML anchors and aliases are not allowed (they expand to gigabytes) — repeat the value",
    "secret": "evil.yaml:2: interpolations are not allowed (they can read the environment) — write the value itself",
    "unquoted pattern": 'evil.yaml:2: an unquoted 2:4 is a base-60 number in YAML — write "2:4"',
    "not UTF-8": "evil.yaml: is not text — a config is a UTF-8 YAML file",
    "not YAML": "evil.yaml:2: is not YAML (did not find expected ',' or ']') — correct the line",
    "a list": "evil.yaml:1: is not a list of keys — write key: value, a line each",
    "twice the same key": "evil.yaml:2: the key name is there twice — keep one",
    "two documents": "evil.yaml: holds several documents — keep one, without ---",
    "newline in a path": "runs_dir=a b: holds a line break or another control character — a folder",
}


@pytest.mark.parametrize("name", TOLD)
def test_h1_says_what_is_wrong_with_the_file(answers, name):
    assert TOLD[name] in answers[0][f"file: {name}"][0]["lines"]


def test_h1_control_composing_the_bomb_costs_a_lot():
    """The bomb of this drill, two levels instead of nine, is a thousand values; each further level ten times more."""
    import yaml

    def size(value):
        return sum(map(size, value)) if isinstance(value, list) else 1

    small = "".join(BOMB.splitlines(keepends=True)[:3])
    assert size(yaml.safe_load(small)["a2"]) == 1000


def test_h1_control_hydra_reads_the_secret(tmp_path, monkeypatch):
    from hydra import compose, initialize_config_dir

    from sparselab.config.members import CONFIGS

    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert compose("config", ["data_dir=${oc.env:WANDB_API_KEY}"]).data_dir == "hunter2"


def test_h1_control_the_hook_sees_what_hydra_would_call(tmp_path):
    code = WATCH.split("cases = ")[0].replace("armed = False", "armed = True", 1) + (
        "sys.addaudithook(hook)\n"
        "from hydra.utils import instantiate\n"
        "instantiate({'_target_': 'builtins.open', '_args_': ['canary', 'w']})\n"
        "print(json.dumps(events))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    assert "open canary to write" in done.stdout and (tmp_path / "canary").exists()


def test_h1_a_link_out_of_the_folder_is_followed_by_the_scan(tmp_path):
    write(tmp_path / "elsewhere", {"evil.yaml": EVIL})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "method").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ConfigError, match=r"evil\.yaml:1: classes cannot be named"):
        scan(str(tmp_path / "mine"))


def test_h1_a_loop_of_links_ends(tmp_path):
    write(tmp_path, {"method/fine.yaml": "name: srste\nlambda_w: 0.1\n"})
    (tmp_path / "method" / "again").symlink_to(tmp_path, target_is_directory=True)
    scan(str(tmp_path))
    (tmp_path / "method" / "self.yaml").symlink_to("self.yaml")
    with pytest.raises(ConfigError, match=r"self\.yaml: cannot be read"):
        scan(str(tmp_path))


def test_h1_a_device_is_not_read(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"zero\.yaml: is not a file"):
        scan(str(tmp_path))


def test_h1_all_files_are_reported_at_once(tmp_path):
    write(tmp_path, {"method/a.yaml": EVIL, "method/b.yaml": BOMB, "optim/c.yaml": "lr: ${x}\n"})
    with pytest.raises(ConfigError) as refused:
        scan(str(tmp_path))
    assert [str(issue).split(":")[0] for issue in refused.value.issues] == ["a.yaml", "b.yaml", "c.yaml"]


def test_h1_a_byte_order_mark_is_named(tmp_path):
    """Hydra read no "# @package" behind one, and the file's values landed elsewhere without a word."""
    write(tmp_path, {"method/mine.yaml": "\ufeff# @package _global_\ntrainer: {max_steps: 3}\n"})
    with pytest.raises(ConfigError) as refused:
        scan(str(tmp_path))
    (line,) = map(str, refused.value.issues)
    assert line.startswith("mine.yaml") and "byte order mark" in line


def test_h1_a_good_folder_is_taken(tmp_path):
    from sparselab.running.planning import plan_of

    write(tmp_path, {"method/mine.yaml": "name: srste\nlambda_w: 0.1\n"})
    plan = plan_of(["method=mine", "sparsity=2:4"], str(tmp_path))
    assert plan.id == plan_of(["method=srste", "method.lambda_w=0.1", "sparsity=2:4"]).id
