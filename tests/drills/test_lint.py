"""Drill H2: what the code may not contain, read from its syntax trees. Every rule is tried on a planted line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sparselab.spec.compose import CONFIGS, groups

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted([ROOT / "run.py", *(ROOT / "sparselab").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])

RUNS_CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pty"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"}
ARGUMENTS = {("shell", True), ("trust_remote_code", True), ("weights_only", False), ("allow_pickle", True)}

# Packages that each part may import, besides its own.
LAYERS = {
    "spec": set(),
    "sparsity": {"spec", "native", "products"},
    "workloads": {"spec"},
    "kernels": {"spec", "native", "workloads"},
    "data": {"spec"},
    "models": {"spec", "products"},
    "store": {"spec"},
    "optim": {"spec"},
    "loggers": {"spec"},
    "methods": {"spec", "sparsity"},
    "activation": {"spec"},
    "attention": {"spec"},
    "tasks": {"spec"},
    "terms": {"spec"},
    "problems": {"spec", "data"},
    "estimators": {"spec", "problems"},
    "solvers": {"spec", "problems"},
    "edits": {"spec"},
    "metrics": {"spec", "data"},
    "tables": {"spec", "store", "planning"},
    "deploy": {"spec", "sparsity", "models", "store", "planning"},
    "bench": {"spec", "sparsity", "data", "methods", "engines", "planning", "models", "deploy"},
    "sweeps": {"spec", "store", "planning", "tables", "engines", "cli"},  # its jobs are entry points of their own
    "engines": {
        "spec", "sparsity", "data", "models", "store", "optim", "loggers", "methods", "tasks", "terms",
        "metrics", "kernels", "workloads", "edits",
        "activation", "attention",
        "problems", "estimators", "solvers",
    },
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
    chosen = {"method", "model", "dataset", "distribution", "schedule", "paper", "term", "optim"}
    members = {name for group in chosen for name in groups(CONFIGS)[group]}
    from sparselab.methods.method import METHODS
    from sparselab.models.family import MODELS

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


def owns(file, name):
    """Whether a file registers the name, and so may compare with it."""
    return f'register("{name}")' in file.read_text()


def imports(tree):
    """(line, part) of everything of the package that is imported, inside functions too; types alone are free."""
    typed = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
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


def test_h2_imports_follow_the_layers():
    assert report(crossings) == {}


def test_h2_every_part_has_its_place_in_the_layers():
    parts = {file.parent.name for file in (ROOT / "sparselab").glob("*/__init__.py")}
    assert parts - {"cli"} <= set(LAYERS)


def test_h2_nothing_heavy_at_the_top_of_planning():
    """Modules that `sparselab check` imports; seen from the outside by drill V1 too."""
    heavy = {"torch", "torchvision", "timm", "transformers", "pytorch_lightning", "datasets", "sklearn", "pandas"}
    for file, tree in parsed():
        if "spec" not in file.parts and "methods" not in file.parts:
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
    ("file", "planted"),
    [
        ("spec/x.py", "from sparselab.methods.method import METHODS"),
        ("store/x.py", "def f():\n    from sparselab.methods.method import METHODS"),
        ("models/x.py", "import sparselab.engines.engine"),
        ("sparsity/x.py", "from sparselab import cli"),
        ("tables/x.py", "from sparselab.methods.rigl import RigL"),
        ("engines/x.py", "from sparselab.cli.run import guarded"),
    ],
)
def test_h2_control_a_planted_import_is_found(file, planted):
    assert crossings(ROOT / "sparselab" / file, ast.parse(planted))
