"""Augmentation: exact pixels on tiny images, and the invariants of drawing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.data.augment import Augment, Draw, affine, crop_and_flip, cutout

ROW = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)  # one grey image of 1 x 3


def drawn(
    n: int = 1, top: int = 0, left: int = 0, flip: bool = False, theta: object = None, corner: tuple = (0, 0)
) -> Draw:
    identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] if theta is None else theta
    return Draw(
        corner=np.array([[top, left]]),
        flip=np.array([flip]),
        theta=np.array([identity], np.float32),
        centre=np.array([corner]),
    )


@pytest.mark.parametrize(
    ("left", "pad", "expected"),
    [(1, "zero", [2, 3, 0]), (-1, "zero", [0, 1, 2]), (1, "reflect", [2, 3, 2]), (-2, "reflect", [3, 2, 1])],
)
def test_crop_moves_the_window_and_pads(left, pad, expected):
    out = crop_and_flip(ROW, torch.tensor([0]), drawn(left=left), Augment(crop=2, pad=pad))
    assert out.dtype == torch.uint8
    assert out.flatten().tolist() == expected


def test_crop_of_rows():
    column = torch.tensor([[[[1], [2], [3]]]], dtype=torch.uint8)
    assert crop_and_flip(column, torch.tensor([0]), drawn(top=-1), Augment(crop=1)).flatten().tolist() == [0, 1, 2]


def test_a_flip_is_a_mirror_image_and_comes_after_the_crop():
    assert crop_and_flip(ROW, torch.tensor([0]), drawn(flip=True), Augment(flip=True)).flatten().tolist() == [3, 2, 1]
    both = crop_and_flip(ROW, torch.tensor([0]), drawn(left=1, flip=True), Augment(flip=True, crop=1))
    assert both.flatten().tolist() == [0, 3, 2]


def test_crop_of_colour_equals_padding_then_slicing():
    images = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8)
    augment = Augment(crop=3, flip=True, pad="reflect")
    draw = augment.draw(np.random.default_rng(0), 5, 6, 7)
    out = crop_and_flip(images, torch.arange(5), draw, augment)
    padded = torch.nn.functional.pad(images.float(), (3, 3, 3, 3), mode="reflect").byte()
    for i in range(5):
        top, left = draw.corner[i] + 3
        window = padded[i, :, top : top + 6, left : left + 7]
        assert torch.equal(out[i], window.flip(-1) if draw.flip[i] else window)


def test_affine_identity_shift_and_quarter_turn():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    torch.testing.assert_close(affine(image, drawn()), image)
    shifted = affine(image, drawn(theta=[[1, 0, 2 / 3], [0, 1, 0]]))  # looks one pixel to the right
    torch.testing.assert_close(shifted[0, 0], torch.tensor([[1.0, 2, 0], [4, 5, 0], [7, 8, 0]]))
    turned = affine(image, drawn(theta=[[0, -1, 0], [1, 0, 0]]))
    torch.testing.assert_close(turned[0, 0], torch.rot90(image[0, 0]))


def test_theta_turns_a_wide_image_without_shearing_it():
    theta = Augment(rotate=90)._theta(np.array([[1.0, 0, 0, 0]]), height=2, width=4)[0]
    np.testing.assert_allclose(theta, [[0, -0.5, 0], [2, 0, 0]], atol=1e-7)


def test_cutout_is_clipped_at_the_border():
    out = cutout(torch.ones(1, 2, 3, 3), drawn(corner=(-1, 1)), side=2)
    assert out[0, 0].tolist() == out[0, 1].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_an_option_does_not_move_the_draws_of_another():
    plain = Augment(flip=True).draw(np.random.default_rng(3), 64, 8, 8)
    more = Augment(flip=True, rotate=10, cutout=3).draw(np.random.default_rng(3), 64, 8, 8)
    assert np.array_equal(plain.flip, more.flip)
    assert 10 < plain.flip.sum() < 54


@settings(max_examples=40)
@given(
    crop=st.integers(0, 5),
    shift=st.floats(0, 3),
    rotate=st.floats(0, 180),
    scale=st.floats(0, 0.9),
    seed=st.integers(0, 2**31),
)
def test_draws_stay_inside_what_the_options_say(crop, shift, rotate, scale, seed):
    augment = Augment(crop=crop, shift=shift, rotate=rotate, scale=scale)
    draw = augment.draw(np.random.default_rng(seed), 7, 8, 8)
    assert np.abs(draw.corner).max() <= crop
    assert not draw.flip.any()
    determinant = draw.theta[:, 0, 0] * draw.theta[:, 1, 1] - draw.theta[:, 0, 1] * draw.theta[:, 1, 0]
    assert np.all(determinant <= (1 - scale) ** -2 * 1.001) and np.all(determinant >= (1 + scale) ** -2 * 0.999)
    assert np.all(np.abs(draw.theta[:, :, 2]) * 4 <= shift + 1e-5)


@pytest.mark.parametrize("values", [{"crop": -1}, {"scale": 1.0}, {"pad": "edge"}, {"flop": True}, {"flip": "yes"}])
def test_bad_options_are_refused_in_one_line(values):
    with pytest.raises(ConfigError) as refused:
        validate(Augment, values, "dataset.augment")
    assert all("\n" not in str(f) and next(iter(values)) in str(f) for f in refused.value.issues)
