"""Drill V3: every YAML file composes, is checked or refused with a sensible line, and says what its class says."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from sparselab.config.compose import CONFIGS, compose, flatten, groups
from sparselab.config.plain import written
from sparselab.config.schema import SEVERAL, TargetOptions, TrainerOptions
from sparselab.config.yaml_file import BASE_60
from sparselab.core.data_types import Activations, Images, NextTokens, Taken, Tokens, Users
from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import UNSET, Options, is_off, off
from sparselab.core.sparsity import PATTERNS
from sparselab.estimation.estimators.estimator import ESTIMATORS
from sparselab.estimation.problems.problem import PROBLEMS
from sparselab.estimation.solvers.solver import SOLVERS
from sparselab.inference.activation.rule import ACTIVATIONS
from sparselab.inference.attention.rule import ATTENTIONS
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inference.routing.rule import ROUTINGS
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.neuron import NEURONS
from sparselab.latency.kernels.kernel import KERNELS
from sparselab.latency.workloads.workload import WORKLOADS
from sparselab.running.engine import ENGINES
from sparselab.running.loggers.logger import LOGGERS
from sparselab.running.planning import plan_of
from sparselab.training.adapts.adapt import ADAPTS
from sparselab.training.edits.edit import EDITS
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.merges.merge import MERGES
from sparselab.training.metrics.metric import METRICS
from sparselab.training.optim.optim import OPTIMS
from sparselab.training.removals.removal import REMOVALS
from sparselab.training.scenarios.scenario import SCENARIOS
from sparselab.training.searches.search import SEARCHES
from sparselab.training.tasks.task import TASKS
from sparselab.weights.capabilities import ReadsScales
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.method import METHODS
from sparselab.weights.schedules import SCHEDULES

REGISTRIES = {
    "method": METHODS, "schedule": SCHEDULES, "distribution": DISTRIBUTIONS, "dataset": DATASETS, "model": MODELS,
    "optim": OPTIMS, "logger": LOGGERS, "engine": ENGINES, "kernel": KERNELS, "workload": WORKLOADS,
    "activation": ACTIVATIONS, "attention": ATTENTIONS, "edit": EDITS, "merge": MERGES, "adapt": ADAPTS, "task": TASKS,
    "scenario": SCENARIOS, "removal": REMOVALS, "search": SEARCHES, "routing": ROUTINGS,
    "decoding": DECODINGS, "problem": PROBLEMS, "neuron": NEURONS, "estimator": ESTIMATORS, "solver": SOLVERS,
}  # fmt: skip
SETS = {**REGISTRIES, "loss": LOSSES, "metric": METRICS}
SPARSITIES = {**{name: PATTERNS[name].example for name in PATTERNS}, "unstructured": "0.5", "block": "block:2x1:0.5"}
FILES = sorted(CONFIGS.rglob("*.yaml"))
TEXT = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=32"]
RECORDED = [
    "dataset=activations", "dataset.model={name: gpt, width: 32, depth: 2}", "dataset.text={name: stdlib, max_bytes: 100000}",
]  # fmt: skip
TAKEN = ["dataset=movielens"]
DECODED = ["workload=decode", "workload.new=8", *TEXT, "model=llama_tiny"]
# Groups that only some engine reads, with what every member needs beside it.
OF_ENGINES = {
    "kernel": ["workload=mobilenet_v1"], "workload": ["kernel=csr"],
    "edit": ["method=dense", "dataset.forget=random:0.1"], "adapt": ["method=dense", "model=mlp"],
    "scenario": ["method=dense", "model=mlp", "dataset.val=0"], "removal": ["method=dense", "model=mlp"],
    "search": ["method=dense", "model=darts_search"],
    "activation": [*TEXT, "model=llama_tiny", "sparsity=0.5"],
    "attention": [*TEXT[:2], "dataset.block=512", "model=gpt_tiny", "sparsity=0.5"],
    "routing": [*TEXT, "model=llama_tiny", "sparsity=0.5"],
    "decoding": [*TEXT, "model=llama_tiny", "model.context=128", "activation=cats", "sparsity=0.5"],
    "estimator": [], "solver": [], "neuron": ["model=snn", "method=dense"],
}  # fmt: skip
OF_DECODE = {"workload=decode", *(f"kernel={n}" for n in ("rows", "columns", "coded", "torch_decode", "onnx_decode"))}
# What a member needs beyond its own defaults.
NEEDS = {
    "attention=sparsed": ["decoding=denoise", "decoding.tokens=32", "decoding.steps=16", "model.context=600"],
    "decoding=denoise": ["activation=null", "attention=window"],
    "model=timm": ["model.arch=resnet26"],
    "model=convnet": ["model.pools=[2]"],  # digits have 8x8 pixels
    "model=vgg16": ["model.pools=[4]"],
    "model=hf": ["model.path=owner/model"],
    "model=lstm": ["model.width=64"],  # the medium size, 650, is no multiple of 4
    "distribution=per_layer": ["distribution.layers={layers.0: 0.5}", "model=mlp", "targets.exclude=[]"],
    "distribution=erk_plus": ["targets.exclude=[]"],
    "distribution=uniform_plus": ["targets.exclude=[]"],
    "method=asp": ["trainer.max_epochs=4"],
    "engine=train": ["sparsity=2:4"],
    "engine=measure": ["kernel=csr", "workload=mobilenet_v1"],
    "engine=decode": ["kernel=rows", *DECODED],
    "workload=decode": ["kernel=rows", *DECODED],
    **{
        f"kernel={name}": ["kernel=" + name, *DECODED]
        for name in ("rows", "columns", "coded", "torch_decode", "onnx_decode")
    },
    "engine=inference": [*TEXT, "model=gpt_tiny"],
    "routing=all_tokens": ["sparsity=null"],
    "metric=unlearning": ["dataset.forget=random:0.1"],
    "metric=against_dense": ["metric.against_dense.dense={cell: {method: dense}}"],
    "loss=spike_rate": ["model=snn"],
    "metric=spikes": ["model=snn"],
    **{
        choice: ["model=llama_moe", "dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=64"]
        for choice in (
            "loss=activation_locality",
            "loss=chunk_sparsification",
            "loss=router_balance",
            "loss=router_l1",
            "loss=router_entropy",
            "loss=remoe_l1",
            "metric=expert_sparsity",
        )
    },
    "loss=norm_scales": ["model=mlp", "model.batch_norm=true"],
    "loss=er": ["scenario=class_incremental", "dataset.val=0"],
    "loss=derpp": ["scenario=class_incremental", "dataset.val=0"],
    "loss=dense_gradients": ["method=cts", "schedule.at=1.0"],
    "loss=gradient_norm": ["method=cts", "schedule.at=1.0"],
    "metric=ingredients": [
        "merge=uniform",
        "model=mlp",
        "model.weights={cell: {model: mlp, method: dense}, vary: {seed: [1, 2]}}",
    ],
    "metric=mask_cosine": ["metric.mask_cosine.masks={cell: {sparsity: 2:4, method: random, distribution: uniform}}"],
    **{
        choice: ["model=sae", *RECORDED]
        for choice in (
            "loss=aux_k",
            "loss=aux_zipf",
            "loss=code_l1",
            "metric=spliced",
            "metric=contexts",
            "metric=alone",
        )
    },
    "loss=looked_up_l2": ["model=lightgcn", *TAKEN, "targets.exclude=[]"],
    "loss=latent_kl": [
        "model=multvae",
        *TAKEN,
        "dataset.examples=users",
        "task.loss=softmax",
        "trainer.batch_size=32",
    ],
    "engine=estimate": ["estimator=colide"],
    "engine=online": ["solver=elimination"],
}


OF_TASK = {
    "task=image_classification": ["model=vit_ti"],
    "task=language_modeling": [*TEXT, "model=gpt_tiny"],
    "task=masked_diffusion": [*TEXT, "model=gpt_tiny"],
    "task=text_classification": ["model=gpt_tiny", "dataset=glue"],
    "task=image_to_image": ["model=dncnn", "dataset=bsd400"],
    "task=reconstruction": ["model=sae", *RECORDED],
    "task=recommendation": ["model=neumf", *TAKEN, "targets.exclude=[]"],
}
TWO_NETWORKS = "model.weights=[{cell: {model: mlp, method: dense}}, {cell: {model: mlp, method: dense, seed: 1}}]"
OF_DATASET = {
    "image_to_image": ["model=dncnn_small"],
    "reconstruction": ["model=sae", *RECORDED[1:]],
    "recommendation": ["model=neumf", "targets.exclude=[]"],
}
OF_PAIR = {
    (Tokens, NextTokens): TEXT, (Images, Images): ["dataset=bsd400"], (Activations, Activations): RECORDED,
    (Users, Taken): [*TAKEN, "targets.exclude=[]"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)


def values_of(group, member):
    """The options of a member's YAML, as composed."""
    composed = compose([f"{group}=[{member}]" if group in SEVERAL else f"{group}={member}"]).config[group]
    return composed[member] if group in SEVERAL else composed


def chosen(group):
    return [f"{group}={name}" for name in groups()[group]]


def takes(draws):
    """An estimator or solver of such draws; of the bandits' one that takes a problem of any size."""
    members = [("estimator", ESTIMATORS, list(ESTIMATORS)), ("solver", SOLVERS, ["gopt_ls", *SOLVERS])]
    return next(f"{g}={name}" for g, registry, names in members for name in names if draws in registry[name].takes)


def cases():
    """Every member of every group once, methods with each of their patterns, models with a dataset that fits."""
    for name in groups()["method"]:
        for kind in METHODS[name].patterns:
            normed = ["model.batch_norm=true"] if issubclass(METHODS[name], ReadsScales) else []
            yield [f"method={name}", f"sparsity={SPARSITIES[kind]}", "model=mlp", "targets.exclude=['@head']", *normed]
    for choice in chosen("model"):
        values = compose([choice]).config["model"]
        heads = MODELS[values["name"]].heads
        fits = next((words for pair, words in OF_PAIR.items() if pair in heads), [])
        yield [choice, "sparsity=2:4", *fits, *NEEDS.get(choice, [])]
    for choice in chosen("dataset"):
        values = compose([choice]).config["dataset"]
        usual = ["model=gpt_tiny"] if "tokenizer" in values else ["model=vit_ti"]
        model = OF_DATASET.get(DATASETS[values["name"]].task, usual)
        yield [choice, *model, "sparsity=2:4"]
    for name in groups()["schedule"]:
        cls = SCHEDULES[values_of("schedule", name)["name"]]
        method = next(method for method in ("ste", *METHODS) if METHODS[method].admits(cls))
        kind = "unstructured" if "unstructured" in cls.patterns else "nm"
        yield [f"method={method}", f"schedule={name}", f"sparsity={SPARSITIES[kind]}"]
    for choice in chosen("distribution"):
        yield ["method=ste", choice, "sparsity=0.5", *NEEDS.get(choice, [])]
    for group in ("optim", "trainer", "tier", "logger", "loss", "metric"):
        for choice in chosen(group):
            yield [choice, "sparsity=2:4", *NEEDS.get(choice, [])]
    for choice in chosen("task"):
        yield [choice, "sparsity=2:4", *OF_TASK[choice]]
    for choice in chosen("merge"):
        yield [choice, "model=mlp", "method=dense", TWO_NETWORKS]
    for choice in chosen("problem"):
        yield [choice, takes(PROBLEMS[choice.partition("=")[2]].draws)]
    for choice in chosen("engine"):
        yield [choice, *NEEDS.get(choice, [])]
    for group, beside in OF_ENGINES.items():
        for choice in chosen(group):
            yield NEEDS[choice] if choice in OF_DECODE else [choice, *beside, *NEEDS.get(choice, [])]


CASES = list(cases())


def test_v3_every_member_is_among_the_cases():
    tried = {word for words in CASES for word in words}
    members = {choice for group in groups() if group != "paper" for choice in chosen(group)}
    assert members - tried == set()


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_v3_every_member_is_planned_or_refused_with_a_sensible_line(words):
    composed = compose(words)
    assert composed.issues == []
    assert json.loads(json.dumps(composed.config)) == composed.config  # plain data
    try:
        plan = plan_of(words)
    except ConfigError as refused:
        for issue in refused.issues:
            assert len(str(issue)) <= WIDTH and issue.fix
            allowed = (
                "kernel=", "dataset=", "dataset.tokenizer=owner/model", "problem=sachs: no local copy",
                "problem=hyperclean: no local copy", "problem.factor=SIX6_REF_R1: no local copy",
                "problem.train=denoise/bsd400: no local copy", "problem.test=denoise/bsd68: no local copy",
                "trainer.accelerator=gpu", "loss.distill.teacher", "loss.squarehead.teacher",
                "schedule=cubic: is not defined for N:M", "distribution=erk: is not defined for N:M",
                "distribution=global: is not defined for", "distribution=owl: method=ste makes new masks",
            )  # fmt: skip
            assert str(issue).startswith(allowed), str(issue)
    else:
        assert plan.id == plan_of(words).id
        assert plan.size


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_v3_values_said_again_change_nothing(words):
    """The config, given back as overrides, composes to itself."""
    config = compose(words).config
    again = [text for text in words if text.split("=")[0] in groups()]
    whole: tuple[str, ...] = ()
    for key, value in flatten(config):
        head = key.split(".")[0]
        if key.startswith(whole) and whole:
            continue
        if isinstance(value, dict) and (key in ("dataset.model", "dataset.text") or "cell" in value):
            again.append(f"{key}={written(value)}")  # a value, not a group of options: nothing below is a key
            whole = (*whole, f"{key}.")
            continue
        leaf = not isinstance(value, dict) and key not in (f"{head}.name", "tier") and value != UNSET
        if leaf and not (head == "distribution" and key.count(".") > 1):
            again.append(f"{key}={written(value) if key == 'model.weights' else json.dumps(value)}")
        elif isinstance(value, dict) and key.count(".") == 1 and head not in ("loss", "metric"):
            again.append(f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()}")
    composed = compose(again)
    assert composed.issues == []
    assert composed.config == config


@pytest.mark.parametrize("group", REGISTRIES)
def test_v3_yaml_and_class_have_the_same_options(group):
    for member in groups()[group]:
        values = compose([f"{group}={member}"]).config[group]
        cls = REGISTRIES[group][values["name"]]
        assert set(values) - {"name"} == set(cls.Options.model_fields) - {"name"}, f"{group}/{member}.yaml"


def written_twice(options, yaml):
    """Fields with a default of their own that the member's YAML states, too.

    ``off`` is none: it says what records from before the option mean, and where an id leaves it out.
    """
    fields = options.model_fields.items()
    return [
        key for key, field in fields if key in yaml and not field.is_required() and not is_off(field, field.default)
    ]


@pytest.mark.parametrize("group", SETS)
def test_v3_a_default_is_written_once(group):
    for member in sorted(set(groups()[group])):
        values = values_of(group, member)
        options = SETS[group][values.get("name", member)].Options
        assert written_twice(options, set(values) - {"name"}) == [], (
            f"the YAML {group}/{member} has it: drop it in the class"
        )


@pytest.mark.parametrize("group", SETS)
def test_v3_python_has_the_defaults_of_the_yaml(group):
    for name in SETS[group]:
        options = SETS[group][name].Options
        if not options.model_fields:
            continue
        values = values_of(group, options.defaults_from.removeprefix(f"{group}/"))
        values = {key: value for key, value in values.items() if key != "name"}
        assert options.usual() == {key: value for key, value in values.items() if key in needed(options, values)}
        own = {key: field.default for key, field in options.model_fields.items() if is_off(field, field.default)}
        assert {key: values[key] for key in own if key in values} == own, (
            f"{group}/{name}: what is off in the class is in the YAML"
        )


def needed(options, values):
    return {key for key, field in options.model_fields.items() if field.is_required() and values[key] != UNSET}


def test_v3_control_a_second_default_is_found():
    class Own(Options):
        rate: float = 0.1
        power: float
        late: float = off(0.0)

    assert written_twice(Own, {"rate", "power", "late"}) == ["rate"]


@pytest.mark.parametrize("group", REGISTRIES)
def test_v3_every_class_has_a_yaml(group):
    named = {compose([f"{group}={member}"]).config[group]["name"] for member in groups()[group]}
    assert set(REGISTRIES[group]) == named


def test_v3_trainer_targets_losses_and_metrics_have_the_same_options_as_their_classes():
    for member in groups()["trainer"]:
        assert set(compose([f"trainer={member}"]).config["trainer"]) == set(TrainerOptions.model_fields), member
    assert set(compose([]).config["targets"]) == set(TargetOptions.model_fields)
    for group, registry in (("loss", LOSSES), ("metric", METRICS)):
        assert set(groups()[group]) == set(registry)
        for member in groups()[group]:
            values = compose([f"{group}=[{member}]"]).config[group][member]
            assert set(values) == set(registry[member].Options.model_fields)


def unquoted(text):
    """Plain scalars of a YAML text that YAML 1.1 reads in base 60."""
    return [
        t.value for t in yaml.scan(text) if isinstance(t, yaml.ScalarToken) and t.plain and BASE_60.fullmatch(t.value)
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_v3_no_unquoted_pattern_no_class_and_no_alias(file):
    text = file.read_text()
    assert unquoted(text) == []
    targets = re.findall(r"_target_: *(.*)", text)
    assert text.count("_target_") == len(targets) and all(target.startswith("hydra_plugins.") for target in targets)
    assert not targets or file.is_relative_to(CONFIGS / "hydra")
    assert not any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)) for token in yaml.scan(text))


@pytest.mark.parametrize("planted", ["sparsity: 2:4", "a: [1:16]", "b: {c: 4:8}", "d: 1:30.5"])
def test_v3_control_a_planted_pattern_is_found(planted):
    assert unquoted(planted)
    assert not isinstance(next(iter(yaml.safe_load(planted).values())), str)  # what makes it a trap


def test_v3_control_a_missing_option_is_found():
    values = compose(["method=srste"]).config["method"]
    values.pop("lambda_w")
    assert set(values) - {"name"} != set(METHODS["srste"].Options.model_fields)
