"""The recurrent language model: its equations, its ties, its dropout, and masks on its gate matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from data_specs import text_data

from sparselab.core.options import validate
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.networks import LSTMLanguageModel
from sparselab.weights.calibration import Calibration, hidden_before
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot

DATA = text_data(6, 11)


def family(**options: object) -> Family:
    return MODELS["lstm"](
        validate(MODELS["lstm"].Options, {"width": 5, "depth": 2, "dropout": 0.0, **options}, "model")
    )


def network(**options: object) -> LSTMLanguageModel:
    torch.manual_seed(0)
    return family(**options).build(DATA)


def tokens(n: int = 3, t: int = 6) -> torch.Tensor:
    return torch.randint(11, (n, t), generator=torch.Generator().manual_seed(1))


def by_hand(model: LSTMLanguageModel, batch: torch.Tensor) -> torch.Tensor:
    """Hochreiter and Schmidhuber's cell with forget gates, rows in torch's order: in, forget, cell, out."""
    x = model.encoder.weight[batch]
    for rnn in model.rnns:
        h = c = torch.zeros(len(batch), rnn.hidden_size)
        hidden = []
        for at in range(batch.shape[1]):
            gates = x[:, at] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hidden.append(h)
        x = torch.stack(hidden, 1)
    return x @ model.decoder.weight.T + model.decoder.bias


@pytest.mark.parametrize("options", [{}, {"tie": False, "embedding": 3}])
def test_the_equations(options) -> None:
    model = network(**options)
    with torch.no_grad():
        assert torch.allclose(family(**options).logits(model, tokens()), by_hand(model, tokens()), atol=1e-5)


def test_a_tied_softmax_layer_is_the_embedding() -> None:
    tied, free = network(), network(tie=False)
    assert tied.decoder.weight is tied.encoder.weight and free.decoder.weight is not free.encoder.weight
    assert sum(p.numel() for p in tied.parameters()) == family().model_spec(DATA).params
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 11 * 5


def test_initial_weights_are_those_of_the_example() -> None:
    model = network(tie=False)
    for weight in (model.encoder.weight, model.decoder.weight):
        assert float(weight.abs().max()) <= 0.1 < 10 * float(weight.abs().mean())
    assert not model.decoder.bias.any()
    assert float(model.rnns[0].weight_hh_l0.abs().max()) <= 5**-0.5


def test_a_state_carried_over_is_one_long_window() -> None:
    model, member, batch = network(), family(carry=True), tokens(3, 12)
    with torch.no_grad():
        whole = member.logits(model, batch)
        first, state = member.carried(model, batch[:, :5], None)
        second, _ = member.carried(model, batch[:, 5:], state)
        assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-6)
        assert not torch.allclose(member.logits(model, batch[:, 5:]), second, atol=1e-3)


def test_dropout_is_a_function_of_the_seed_and_off_in_evaluation() -> None:
    model = network(dropout=0.5)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(tokens())[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    model.eval()
    assert torch.allclose(model(tokens())[0], by_hand(model, tokens()), atol=1e-5)


def test_dropout_is_between_layers_and_not_between_tokens() -> None:
    """What goes into a layer has holes, what a layer hands to itself has none."""
    model = network(dropout=0.5)
    torch.manual_seed(3)
    seen = []
    handles = [rnn.register_forward_hook(lambda m, inputs, out: seen.append((inputs[0], out[0]))) for rnn in model.rnns]
    model(tokens())
    for handle in handles:
        handle.remove()
    (x, hidden), (after, _) = seen
    assert (x == 0).any() and not (hidden == 0).any()
    kept = after != 0
    assert torch.allclose(after[kept], 2 * hidden[kept]) and 0.2 < float(kept.float().mean()) < 0.8


@pytest.mark.parametrize("asked", [0.75, "2:4", "channel:0.5", "in_channel:0.5"])
def test_each_matrix_gets_its_own_exact_mask_and_the_network_computes_with_it(asked) -> None:
    """Weights are written in place, and the module multiplies by what was written: no copy of it is flattened away."""
    model, sparsity = network(tie=False, width=8, embedding=4), Sparsity.parse(asked)
    model_spec = family(tie=False, width=8, embedding=4).model_spec(DATA)
    slots = []
    for layer in model_spec.layers:
        param = model.get_parameter(layer.tensor)
        pattern = Pattern.of(sparsity, layer.kind)
        with torch.no_grad():
            mask = pattern.mask(param.abs(), sparsity.density)
            param.data.mul_(mask)
        assert pattern.holds(mask)
        if layer.kind == "gates":
            assert int(mask.sum()) == mask.numel() * sparsity.density
        slots.append(Slot(layer, param, pattern, mask))
    assert [slot.name for slot in slots if slot.layer.kind == "gates"] == [
        f"rnns.{i}.weight_{kind}_l0" for i in range(2) for kind in ("ih", "hh")
    ]
    again = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.allclose(model(tokens())[0], by_hand(model, tokens()), atol=1e-5)
        assert torch.equal(again(tokens())[0], model(tokens())[0])


def test_what_gate_matrices_read() -> None:
    """The input's matrix reads what comes in, the recurrent one the hidden state before each token."""
    model = network(tie=False)
    model_spec = family(tie=False).model_spec(DATA)
    slots = [
        Slot(layer, model.get_parameter(layer.tensor), Pattern.of(Sparsity.parse(0.5)), torch.ones(layer.shape).bool())
        for layer in model_spec.layers
    ]
    batches = [tokens(), tokens().flip(0, 1)]
    calibration = Calibration(model, lambda batch: model(batch), slots, family().blocks(model), lambda: iter(batches))
    rows: dict[str, list[torch.Tensor]] = {slot.name: [] for slot in slots}
    with torch.no_grad():
        for batch in batches:
            x = model.encoder(batch)
            for i, rnn in enumerate(model.rnns):
                y = rnn(x)[0]
                rows[f"rnns.{i}.weight_ih_l0"].append(x.flatten(0, 1))
                rows[f"rnns.{i}.weight_hh_l0"].append(torch.cat([torch.zeros(3, 1, 5), y[:, :-1]], 1).flatten(0, 1))
                x = y
            rows["decoder.weight"].append(x.flatten(0, 1))
    for slot in slots[1:]:
        vectors = torch.cat(rows[slot.name])
        assert torch.allclose(calibration.moments(slot), vectors.T @ vectors / len(vectors), atol=1e-5), slot.name
    assert torch.equal(calibration.moments(slots[0]), torch.eye(5))
    state = (torch.ones(1, 3, 5), torch.zeros(1, 3, 5))
    assert torch.equal(hidden_before((None, state), torch.zeros(3, 2, 5)).view(3, 2, 5)[:, 0], torch.ones(3, 5))
