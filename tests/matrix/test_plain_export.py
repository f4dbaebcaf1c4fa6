"""Drill N5: what a run leaves loads into plain torch, timm and transformers, zeros intact, with the same outputs.

The reader is another process that never imports the project. The control is a parametrised network, whose names fit
nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matrix_cells import Row, config_of
from safetensors.torch import load_file, save_file

from sparselab.running.planning import engine_of, plan_of
from sparselab.running.run_cell import run_cell

READER = """
import json, sys
import torch
from safetensors.torch import load_file

def plain_torch(folder):
    weights = load_file(f"{folder}/model.safetensors")
    layers = ["layers.0", "layers.1", "head"]
    x = load_file(f"{folder}/probe.safetensors")["inputs"].flatten(1)
    for i, name in enumerate(layers):
        x = torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        x = x.relu() if i < 2 else x
    return weights, x

def plain_timm(folder):
    from timm.models.vision_transformer import VisionTransformer
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
    network = VisionTransformer(num_classes=10, **sizes)
    network.load_state_dict(load_file(f"{folder}/model.safetensors"))
    with torch.no_grad():
        logits = network.eval()(load_file(f"{folder}/probe.safetensors")["inputs"])
    return dict(network.named_parameters()), logits

def plain_transformers(folder):
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel
    network, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(network) is GPT2LMHeadModel
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert network.lm_head.weight is network.transformer.wte.weight
    with torch.no_grad():
        logits = network.eval()(input_ids=load_file(f"{folder}/probe.safetensors")["inputs"]).logits
    return dict(network.named_parameters()), logits

def plain_lstm(folder):
    weights = load_file(f"{folder}/model.safetensors")
    x = weights["encoder.weight"][load_file(f"{folder}/probe.safetensors")["inputs"]]
    with torch.no_grad():
        for i in range(2):
            rnn = torch.nn.LSTM(8, 8, batch_first=True)
            own = {name.removeprefix(f"rnns.{i}."): w for name, w in weights.items() if name.startswith(f"rnns.{i}.")}
            rnn.load_state_dict(own)
            x = rnn.eval()(x)[0]
        return weights, torch.nn.functional.linear(x, weights["encoder.weight"], weights["decoder.bias"])

def plain_sentences(folder):
    from transformers import AutoModelForSequenceClassification, GPT2ForSequenceClassification
    network, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert type(network) is GPT2ForSequenceClassification
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokens, present, _ = load_file(f"{folder}/probe.safetensors")["inputs"].unbind(1)
    with torch.no_grad():
        logits = network.eval()(input_ids=tokens, attention_mask=present).logits
    return dict(network.named_parameters()), logits

def plain_dncnn(folder):
    weights = load_file(f"{folder}/model.safetensors")
    x = given = load_file(f"{folder}/probe.safetensors")["inputs"]
    x = torch.nn.functional.conv2d(x, weights["dncnn.0.weight"], weights["dncnn.0.bias"], padding=1).relu()
    x = torch.nn.functional.conv2d(x, weights["dncnn.2.weight"], padding=1)
    norm = torch.nn.BatchNorm2d(4)
    norm.load_state_dict({name.removeprefix("dncnn.3."): w for name, w in weights.items() if name.startswith("dncnn.3.")})
    with torch.no_grad():
        x = norm.eval()(x).relu()
    return weights, given - torch.nn.functional.conv2d(x, weights["dncnn.5.weight"], padding=1)

found = {}
readers = (plain_torch, plain_timm, plain_transformers, plain_sentences, plain_dncnn, plain_lstm)
for reader, folder in zip(readers, sys.argv[1:]):
    parameters, logits = reader(folder)
    masks = load_file(f"{folder}/masks.safetensors")
    found[reader.__name__] = {
        "same": torch.equal(logits, load_file(f"{folder}/probe.safetensors")["logits"]),
        "masked": sorted(masks),
        "alive": sum(int(torch.count_nonzero(parameters[name][~mask])) for name, mask in masks.items()),
        "pruned": sum(int((~mask).sum()) for mask in masks.values()),
    }
print(json.dumps({"read": found, "imported": any(name.split(".")[0] == "sparselab" for name in sys.modules)}))
"""

CELLS = {
    "plain_torch": (Row("gmp", "unstructured", "cubic"), ("model=mlp",), {}),
    "plain_timm": (
        Row("srste", "nm", "constant"),
        ("model=vit_s",),
        {"model": {"width": 16, "depth": 1, "heads": 2, "patch": 4}},
    ),
    "plain_transformers": (
        Row("rigl", "unstructured", "periodic"),
        ("model=gpt_tiny", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]"),
        {"model": {"width": 8, "depth": 1, "heads": 2}, "dataset": {"block": 8}, "trainer": {"ema": 0.5}},
    ),
    "plain_sentences": (
        Row("srste", "nm", "constant"),
        ("model=gpt_tiny", "dataset=glue", "dataset.subset=rte"),
        {
            "model": {"width": 8, "depth": 1, "heads": 2},
            "dataset": {"block": 8, "limit_train": 24, "limit_test": 8},
            "trainer": {"ema": 0.5},
        },
    ),
    "plain_dncnn": (
        Row("gmp", "unstructured", "cubic"),
        ("model=dncnn", "dataset=bsd400"),
        {"model": {"width": 4, "depth": 3}, "dataset": {"patch": 12, "patches": 8, "limit_test": 1}},
    ),
    "plain_lstm": (
        Row("gmp", "unstructured", "cubic"),
        ("model=lstm", "dataset=tinyshakespeare", "trainer=text", "targets.exclude=[]"),
        {"model": {"width": 8}, "dataset": {"block": 8}},
    ),
}


def finish(row, overrides, groups, folder):
    """Run the cell; beside its files, put inputs and what its network makes of them, computed here."""
    config = config_of(row, folder, *overrides, **groups)
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    parts = plan.parts
    network = parts.family.build(parts.data).eval()
    parts.family.load(network, f"{plan.folder}/model.safetensors")
    torch.manual_seed(0)
    inputs = parts.data.inputs.sample(5)
    with torch.no_grad():
        logits = parts.family.logits(network, inputs).contiguous()
    save_file({"inputs": inputs, "logits": logits}, f"{plan.folder}/probe.safetensors")
    return plan.folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory, text):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SPARSELAB_DATA", str(text))
        folders = [finish(*cell, tmp_path_factory.mktemp(name)) for name, cell in CELLS.items()]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run([sys.executable, "-c", READER, *folders], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), dict(zip(CELLS, folders, strict=True))


def test_the_reader_knows_nothing_of_the_project(answers):
    assert not answers[0]["imported"]


@pytest.mark.parametrize("reader", CELLS)
def test_a_plain_library_reads_the_sparse_network(reader, answers):
    told, folder = answers[0]["read"][reader], answers[1][reader]
    record = json.loads(Path(folder, "record.json").read_text())
    assert told["same"], "logits differ"
    assert told["alive"] == 0 and told["pruned"] > 0
    assert told["masked"] == sorted(layer["name"] for layer in record["sparsity"]["layers"])
    assert told["pruned"] == record["sparsity"]["weights"] - record["sparsity"]["kept"]
    assert record["sparsity"]["pattern_holds"]


def test_the_folder_of_a_language_model_is_a_model(answers, text, monkeypatch):
    """Its config.json says nothing of this machine, its digest is in the record, and `model=hf` takes the folder."""
    folder = Path(answers[1]["plain_transformers"])
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["n_embd"] == 8
    assert not {"_name_or_path", "transformers_version"} & set(config)
    assert json.loads((folder / "record.json").read_text())["files"]["config.json"]["size"] > 100
    assert not (Path(answers[1]["plain_timm"]) / "config.json").exists()
    monkeypatch.setenv("SPARSELAB_DATA", str(text))
    again = ["model=hf", f"model.path={folder}", "dataset=tinyshakespeare", "dataset.block=8", "method=dense"]
    assert plan_of(again).cost["params"] == json.loads((folder / "record.json").read_text())["account"]["params"]


def test_names_are_the_library_s_own(answers):
    import timm

    own = timm.create_model("vit_small_patch16_224", depth=1).state_dict()
    assert set(load_file(f"{answers[1]['plain_timm']}/model.safetensors")) == set(own)


def test_a_parametrised_export_would_not_load(tmp_path):
    """The control: sparsity as a parametrisation renames what it touches."""
    from torch.nn.utils import prune

    network = torch.nn.Sequential(torch.nn.Linear(4, 4))
    prune.l1_unstructured(network[0], "weight", 0.5)
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="weight_orig"):
        torch.nn.Sequential(torch.nn.Linear(4, 4)).load_state_dict(load_file(tmp_path / "model.safetensors"))
