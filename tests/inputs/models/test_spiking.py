"""Networks of spiking neurons and the codes that turn pictures into time steps."""

from __future__ import annotations

import copy

import pytest
import torch
from data_specs import image_data

from sparselab.core.options import validate
from sparselab.inputs.models import encoding
from sparselab.inputs.models.family import MODELS
from sparselab.running.planning import plan_of

torch.set_num_threads(1)
DATA = image_data((1, 8, 8), 10)


def network(name="snn", seed=0, data=DATA, **options):
    torch.manual_seed(seed)
    member = MODELS[name](validate(MODELS[name].Options, options, "model"))
    return member.build(data)


def images(n=4, seed=0):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def neuron(name, **options):
    return {"name": name, **options}


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [True, False])
def test_item_7_rates_are_half_the_clamped_value_and_spikes_are_0_or_1(drawn):
    values = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])
    pictures = values.repeat(2000, 1)
    pictures += torch.arange(2000)[:, None] * (0 if drawn else 1e-3) * (values == -1)  # pictures that differ somewhere
    spikes = encoding.rate(pictures, 10, 0.5, drawn)
    assert spikes.shape == (2000, 10, 6) and set(spikes.unique().tolist()) == {0.0, 1.0}
    mean, want = spikes.mean((0, 1))[1:], 0.5 * values[1:].clamp(0, 1)
    assert bool(((mean - want).abs() < 5 * (want * (1 - want) / 20000).sqrt() + 1e-9).all())


def test_an_image_is_coded_alike_whatever_its_batch_and_otherwise_than_another():
    pictures = images(6).flatten(1)
    spikes = encoding.rate(pictures, 3, 0.5, False)
    assert torch.equal(encoding.rate(pictures[2:4], 3, 0.5, False), spikes[2:4])
    half = torch.full((2, 500), 0.5)
    half[1, 0] = 0.4
    one, other = encoding.rate(half, 2, 1.0, False)
    assert 0.4 < float((one != other).float().mean()) < 0.6
    assert 0.4 < float((one[0] != one[1]).float().mean()) < 0.6


def test_rates_are_drawn_anew_in_training_and_fixed_in_evaluation():
    model = network()
    x = images()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_a_picture_are_its_time_steps():
    x = images(2)
    assert torch.equal(encoding.rows(x), x[:, 0])
    assert torch.equal(encoding.rows(x.expand(2, 3, 8, 8))[:, 4, 8:16], x[:, 0, 4])


# -- networks ----------------------------------------------------------------------------------------------------------


def test_one_step_of_plain_sigmoids_is_a_perceptron():
    model = network(encoding="direct", neuron=neuron("sigmalif", learn_eps=False))
    x = images()
    want = model.head(torch.sigmoid(model.layers[0](x.flatten(1))))
    assert torch.allclose(model(x), want, atol=1e-6)


def test_the_output_is_the_mean_over_time_of_what_the_head_makes_of_spikes():
    model = network(encoding="direct", timesteps=3, neuron=neuron("ultraplif"), hidden=[5])
    x = images()
    currents = model.layers[0](x.flatten(1))
    spikes = model.neurons[0](currents[:, None].expand(-1, 3, -1))
    assert torch.allclose(model(x), model.head(spikes).mean(1), atol=1e-6)
    spiking = network(encoding="direct", timesteps=3, readout="neuron")
    assert len(spiking.neurons) == 2 and set((3 * spiking(x)).round(decimals=4).unique().tolist()) <= {
        0.0,
        1.0,
        2.0,
        3.0,
    }


def test_layers_of_one_width_can_be_added():
    x = images()
    plain, added = (network(hidden=[6, 6], encoding="direct", residual=residual) for residual in (False, True))
    first = added.neurons[0](added.layers[0](x.flatten(1))[:, None])
    second = added.neurons[1](added.layers[1](first))
    assert torch.allclose(added(x), added.head(first + second).mean(1), atol=1e-6)
    assert torch.allclose(plain(x), plain.head(second).mean(1), atol=1e-6)


def test_batch_normalisation_is_of_each_time_step():
    model = network(hidden=[6], encoding="direct", timesteps=2, batch_norm=True)
    x = torch.randn(8, 2, 64)
    currents = model.layers[0](x)
    seen = []
    model.norms[0].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model.code = lambda pictures, training: x
    model(images(8))
    assert [step.shape for step in seen] == [(8, 6), (8, 6)] and torch.equal(seen[1], currents[:, 1])


@pytest.mark.parametrize("name", ["lif", "ultradlif"])
def test_permuted_units_change_a_ring_and_nothing_else(name):
    model = network(hidden=[7], encoding="direct", timesteps=3, neuron=neuron(name))
    other = copy.deepcopy(model)
    order = torch.tensor([3, 0, 5, 1, 6, 2, 4])
    with torch.no_grad():
        other.layers[0].weight.copy_(model.layers[0].weight[order])
        other.layers[0].bias.copy_(model.layers[0].bias[order])
        other.head.weight.copy_(model.head.weight[:, order])
    x = images()
    assert torch.allclose(model(x), other(x), atol=1e-5) == (name == "lif")


def test_convolutions_repeat_the_picture_and_halve_it():
    model = network("snn_conv", widths=[4, 6], timesteps=2, neuron=neuron("ultralif"))
    x = images()
    out = model(x)
    assert out.shape == (4, 10) and model.head.in_features == 6 * 4 and torch.equal(out, model(x))
    first = model.neurons[0](torch.nn.functional.avg_pool2d(model.convs[0](x), 2)[:, None].expand(-1, 2, -1, -1, -1))
    assert first.shape == (4, 2, 4, 4, 4)


def test_every_parameter_learns_and_states_do_not_outlive_a_pass():
    for name in ("snn", "snn_conv"):
        model = network(name, timesteps=2, neuron=neuron("ultradplif"))
        for _ in range(2):
            model(images()).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        assert not list(model.buffers())


# -- the group neuron --------------------------------------------------------------------------------------------------


def test_a_neuron_is_one_cell_however_it_is_said():
    words = ["model=snn", "method=dense"]
    one = plan_of([*words, "neuron=ultralif", "neuron.eps=0.5"])
    other = plan_of([*words, "model.neuron={name: ultralif, eps: 0.5}"])
    assert one.id == other.id and one.config == other.config
    assert one.config["neuron"] is None and one.config["model"]["neuron"]["threshold"] == 0.5
    assert plan_of(words).id == plan_of([*words, "neuron=lif"]).id != one.id


def test_units_can_be_taken_out_where_neurons_look_at_their_own_alone():
    words = ["model=snn", "model.hidden=[8, 8]", "sparsity=unit:0.5", "method=magnitude", "schedule=one_shot"]
    assert plan_of(words).parts.layers
    from sparselab.core.errors import ConfigError

    with pytest.raises(ConfigError):
        plan_of([*words, "neuron=ultradlif"])
