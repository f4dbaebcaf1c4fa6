"""Drill H2: what the code may not contain, read from its syntax trees. Every rule is tried on a planted line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sparselab.config.compose import CONFIGS, groups
from sparselab.core.sparsity import PATTERNS

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted([ROOT / "run.py", *(ROOT / "sparselab").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])

RUNS_CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pty"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"}
ARGUMENTS = {("shell", True), ("trust_remote_code", True), ("weights_only", False), ("allow_pickle", True)}

# Rooms that each room may import, besides itself. Those that run cells never import each other.
BASE = {"core", "config", "storage", "running"}
LAYERS = {
    "core": set(),
    "config": {"core"},
    "storage": {"core"},
    "running": {"core", "config", "storage"},
    "inputs": {"core"},
    "weights": {"core"},
    "training": {*BASE, "inputs", "weights"},
    "inference": {*BASE, "inputs"},
    "estimation": {*BASE, "inputs"},
    "latency": {*BASE, "inputs", "weights"},
    "experiments": BASE,
    "tools": {*BASE, "inputs", "weights", "training", "estimation"},  # the bench times what each of them computes
}  # fmt: skip


def dotted(node):
    """``a.b.c`` of an attribute chain, or an empty text."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def forbidden(tree):
    """(line, what) of everything that could run what a file or a user says."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append((node.lineno, node.module))
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in RUNS_CODE or name in CALLS:
                found.append((node.lineno, name))
            if name in ("torch.load", "torch.jit.load") and "weights_only" not in {k.arg for k in node.keywords}:
                found.append((node.lineno, f"{name} without weights_only"))
            for keyword in node.keywords:
                value = keyword.value
                if isinstance(value, ast.Constant) and (keyword.arg, value.value) in ARGUMENTS:
                    found.append((node.lineno, f"{keyword.arg}={value.value}"))
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            constants = [
                (k.value, v.value) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)
            ]
            found += [(node.lineno, f"{k}={v}") for k, v in constants if (k, v) in ARGUMENTS]
    return found


def names():
    """Names of methods, models, data sets, distributions, schedules and papers."""
    chosen = {"method", "model", "dataset", "distribution", "schedule", "paper", "loss", "optim", "task"}
    members = {name for group in chosen for name in groups(CONFIGS)[group]}
    from sparselab.inputs.models.family import MODELS
    from sparselab.weights.method import METHODS

    # Words of every day, which are values of other options too, are no evidence.
    return (members | set(METHODS) | set(MODELS)) - {"constant", "cosine", "linear", "dense", "global", "random", "set"}


def comparisons(tree, words):
    """(line, name) where a value is compared with a name, or looked up among some."""
    found = []
    for node in ast.walk(tree):
        sides = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            inner = side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]
            constants = [part.value for part in inner if isinstance(part, ast.Constant)]
            found += [(node.lineno, value) for value in constants if isinstance(value, str) and value in words]
    return found


def compared_kinds(tree, words):
    """(line, name) where a sparsity's ``kind`` is compared with a pattern's name, or any value with one that is no word."""
    found = comparisons(tree, words - {"dense", "block"})  # these two are values of other options as well
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides):
                found += [pair for pair in comparisons(node, words) if pair not in found]
    return found


def owns(file, name):
    """Whether a file registers the name, and so may compare with it."""
    return f'register("{name}")' in file.read_text()


def imports(tree):
    """(line, room) of everything of the package that is imported, inside functions and for types alone too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sparselab":
            below = node.module.split(".")[1:]
            found += [(node.lineno, below[0])] if below else [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found += [(node.lineno, p[1]) for p in parts if p[0] == "sparselab" and len(p) > 1]
    return found


def crossings(file, tree):
    """(line, part) of imports against the direction of the layers."""
    package, part = (*file.relative_to(ROOT).parts, "")[:2]
    allowed = LAYERS.get(part) if package == "sparselab" else None
    return [] if allowed is None else [(line, to) for line, to in imports(tree) if to not in {*allowed, part}]


def parsed():
    return [(file, ast.parse(file.read_text())) for file in CODE]


def report(rule):
    return {f"{file.relative_to(ROOT)}:{line}": what for file, tree in parsed() for line, what in rule(file, tree)}


def test_h2_nothing_runs_what_a_file_says():
    assert report(lambda file, tree: forbidden(tree)) == {}


def test_h2_nothing_compares_with_a_name_outside_its_own_file():
    words = names()

    def rule(file, tree):
        return [(line, word) for line, word in comparisons(tree, words) if not owns(file, word)]

    assert report(rule) == {}


def test_h2_nothing_compares_a_kind_with_a_pattern_outside_its_own_file():
    """What a pattern is, is asked of it: ``prunes``, ``free``, ``grouped``, ``fixed_count`` and so on."""
    words = set(PATTERNS)

    def rule(file, tree):
        return [(line, word) for line, word in compared_kinds(tree, words) if not owns(file, word)]

    assert report(rule) == {}


def test_h2_imports_follow_the_layers():
    assert report(crossings) == {}


def test_h2_every_part_has_its_place_in_the_layers():
    parts = {file.parent.name for file in (ROOT / "sparselab").glob("*/__init__.py")}
    assert parts - {"cli"} <= set(LAYERS)


def test_h2_nothing_heavy_at_the_top_of_planning():
    """Modules that `sparselab check` imports; seen from the outside by drill V1 too."""
    heavy = {"torch", "torchvision", "timm", "transformers", "pytorch_lightning", "datasets", "sklearn", "pandas"}
    for file, tree in parsed():
        marked = "[torch]" in (ast.get_docstring(tree) or "")  # imported inside functions only
        if marked or not {"core", "config", "methods", "kinds"} & set(file.parts):
            continue
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        modules = {a.name for n in top if isinstance(n, ast.Import) for a in n.names} | {
            n.module or "" for n in top if isinstance(n, ast.ImportFrom)
        }
        assert not {module.split(".")[0] for module in modules} & heavy, file


@pytest.mark.parametrize(
    "planted",
    [
        "eval(text)", "exec(text)", "__import__(name)", "import pickle", "from dill import loads",
        "import joblib.parallel", "os.system(text)", "yaml.load(text)", "subprocess.run(text, shell=True)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "numpy.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", 'options = {"trust_remote_code": True}',
        "def f():\n    import marshal",
    ],
)  # fmt: skip
def test_h2_control_a_planted_call_is_found(planted):
    assert forbidden(ast.parse(planted))


@pytest.mark.parametrize("innocent", ["yaml.safe_load(text)", "torch.load(path, weights_only=True)", "model.eval()"])
def test_h2_control_what_is_allowed_is_not(innocent):
    assert forbidden(ast.parse(innocent)) == []


@pytest.mark.parametrize(
    "planted",
    [
        'if method == "srste": pass',
        'x = name in ("rigl", "gmp")',
        'match name:\n    case "vit_s": pass',
        '"cifar10" != name',
    ],
)
def test_h2_control_a_planted_comparison_is_found(planted):
    assert comparisons(ast.parse(planted), names())


@pytest.mark.parametrize(
    "planted", ['if sparsity.kind == "dense": pass', 'kind != "nm"', 'slot.pattern.sparsity.kind in ("block", "x")']
)
def test_h2_control_a_planted_kind_is_found(planted):
    assert compared_kinds(ast.parse(planted), set(PATTERNS))


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("core/x.py", "from sparselab.weights.method import METHODS"),
        ("storage/x.py", "def f():\n    from sparselab.weights.method import METHODS"),
        ("inputs/x.py", "import sparselab.running.engine"),
        ("weights/x.py", "from sparselab import cli"),
        ("experiments/x.py", "from sparselab.weights.methods.dynamic import RigL"),
        ("training/x.py", "from sparselab.inference.count import counted"),
        ("running/x.py", "if TYPE_CHECKING:\n    from sparselab.training.parts import Parts"),
    ],
)
def test_h2_control_a_planted_import_is_found(file, planted):
    assert crossings(ROOT / "sparselab" / file, ast.parse(planted))


RIDDLES = ("What ", "Whether ", "Whoever ", "Where ", "Somebody ", "Nobody ", "As far as ", "Of ")


def test_h2_docstrings_begin_with_an_imperative_or_a_noun():
    def rule(file, tree):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        named = [(node.lineno, ast.get_docstring(node) or "") for node in ast.walk(tree) if isinstance(node, kinds)]
        named.append((1, ast.get_docstring(tree) or ""))
        return [(line, text.split("\n")[0]) for line, text in named if text.startswith(RIDDLES)]

    assert report(rule) == {}
