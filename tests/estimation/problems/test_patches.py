"""Patches of whitened photographs, and what is said of the fields that are learnt from them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sparselab.core.errors import ConfigError
from sparselab.estimation.problems.images import gabor, whiten
from sparselab.estimation.problems.images.sample import PatchSample, shapes
from sparselab.running.planning import engine_of, plan_of


@pytest.fixture
def photographs(tmp_path, rng):
    """Two folders of small pictures: smooth noise, upright and oblong."""
    for folder, count in (("train", 3), ("test", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(40, 50))) * smooth(40, 50)).real
            grey = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
            Image.fromarray(grey).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def smooth(height, width):
    return 1 / (0.02 + np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]))


def cell(folder, *more):
    return [
        "estimator=sparse_coding", f"problem.train={folder}/train", f"problem.test={folder}/test", "problem.patch=6",
        "problem.patches=200", "problem.held_out=50", "problem.margin=2", "estimator.units=12", "estimator.batch=50",
        f"runs_dir={folder}/runs", "trainer.threads=1", *more,
    ]  # fmt: skip


# -- whitening ---------------------------------------------------------------------------------------------------------


def test_the_gain_is_the_paper_s_and_the_mean_goes(rng):
    """rho exp(-(rho / f0)^4) with f0 = 0.4 of the height; 0 at rho = 0, so a whitened picture's mean is 0."""
    found = whiten.gain(64, 64, 0.4, "isotropic")
    assert found[0, 0] == 0
    assert found[3, 4] == pytest.approx(5 / 64 * np.exp(-((5 / 25.6) ** 4)))
    assert whiten.whitened(7 + rng.normal(size=(64, 64)), 0.4, "isotropic").mean() == pytest.approx(0, abs=1e-15)


def test_readings_of_frequency_agree_on_squares_and_differ_on_oblong_pictures():
    assert whiten.gain(32, 32, 0.4, "index") == pytest.approx(whiten.gain(32, 32, 0.4, "isotropic"))
    by_index = whiten.gain(32, 48, 0.4, "index")
    assert by_index[0, 3] == pytest.approx(3 / 32 * np.exp(-((3 / 32 / 0.4) ** 4)))  # three periods, whatever the width
    assert whiten.gain(32, 48, 0.4, "isotropic")[0, 3] == pytest.approx(3 / 48 * np.exp(-((3 / 48 / 0.4) ** 4)))


@pytest.mark.parametrize("shape", [(12, 16), (13, 17), (12, 17)])
def test_the_real_transform_filters_as_the_whole_one(shape, rng):
    picture = rng.normal(size=shape)
    for frequencies in ("isotropic", "index"):
        whole = np.fft.ifft2(np.fft.fft2(picture) * whiten.gain(*shape, 0.4, frequencies)).real
        assert whiten.whitened(picture, 0.4, frequencies) == pytest.approx(whole, abs=1e-14)


def test_one_factor_of_the_training_pictures_scales_all(photographs):
    """The training pictures have the wanted mean variance; the others have what they have."""
    problem = plan_of(cell(photographs)).parts[1]
    sample = problem.draw(0, 0)
    found = {}
    for which in ("train", "test"):
        folder = photographs / which
        found[which] = whiten.load(folder, whiten.stamp_of(folder), "olshausen", 0.4, "isotropic")
    scale = np.sqrt(0.1) / whiten.amplitude(found["train"])
    assert np.mean([(scale * picture).var() for picture in found["train"]]) == pytest.approx(0.1)
    windows = np.lib.stride_tricks.sliding_window_view(scale * found["test"][0], (6, 6)).reshape(-1, 36)
    windows = np.vstack(
        [windows, np.lib.stride_tricks.sliding_window_view(scale * found["test"][1], (6, 6)).reshape(-1, 36)]
    )
    centred = windows - windows.mean(1, keepdims=True)
    assert all(np.abs(centred - patch).max(axis=1).min() < 1e-12 for patch in sample.held)
    assert sample.X.mean(axis=1) == pytest.approx(0, abs=1e-12)


def test_patches_keep_away_from_the_edges(rng):
    picture = np.zeros((20, 30))
    picture[5:-5, 5:-5] = rng.random((10, 20)) + 1
    found = whiten.patches([picture], 4, 3000, 5, rng)
    ends = np.lib.stride_tricks.sliding_window_view(picture[5:-5, 5:-5], (4, 4)).reshape(-1, 16)
    ends = ends - ends.mean(axis=1, keepdims=True)
    kinds = {tuple(patch) for patch in found.round(9)}
    assert kinds == {tuple(patch) for patch in ends.round(9)}  # 3000 draws meet all 7 * 17 of them


def test_van_hateren_s_files_are_read(tmp_path):
    pixels = np.arange(1024 * 1536, dtype=np.uint16).reshape(1024, 1536)
    (tmp_path / "a.imc").write_bytes(pixels.astype(">u2").tobytes())
    assert (whiten.read(tmp_path / "a.imc") == pixels).all() and whiten.size_of(tmp_path / "a.imc") == (1024, 1536)
    (tmp_path / "b.imc").write_bytes(b"12")
    with pytest.raises(ValueError, match="no picture of van Hateren"):
        whiten.read(tmp_path / "b.imc")


# -- cells -------------------------------------------------------------------------------------------------------------


def test_a_cell_from_plan_to_record_and_its_picture(photographs):
    plan = plan_of(cell(photographs, "estimator.target_active=0.2"))
    record = engine_of(plan.config).run(plan)
    again = plan_of(cell(photographs, "estimator.target_active=0.2", f"runs_dir={photographs}/again"))
    other = engine_of(again.config).run(again)
    assert (record["metrics"], record["files"]) == (other["metrics"], other["files"]) and plan.id == again.id
    metrics = record["metrics"]
    assert metrics["test.sparsity"] == record["sparsity"]["realised"] == 1 - metrics["test.active"]
    assert metrics["test.active_units"] == pytest.approx(12 * metrics["test.active"])
    with Image.open(photographs / "runs" / plan.id / "fields.png") as picture:
        assert picture.size == (3 * (4 * 7 + 1), 3 * (3 * 7 + 1))  # twelve tiles of 6 and an edge, thrice as large


def test_rules_meet_the_same_patches_and_the_same_first_dictionary(photographs):
    draws = [plan_of(cell(photographs, f"estimator.penalty={p}")).parts[1].draw(3, 0) for p in ("soft", "cel0")]
    assert (draws[0].X == draws[1].X).all() and (draws[0].held == draws[1].held).all()
    other = plan_of(cell(photographs)).parts[1].draw(4, 0)
    assert not (other.X == draws[0].X).all()


def test_the_id_follows_what_the_folders_hold_and_not_where_they_lie(photographs, tmp_path):
    plain = plan_of(cell(photographs)).id
    (photographs / "moved").mkdir()
    for name in ("train", "test"):
        (photographs / name).rename(photographs / "moved" / name)
    moved = cell(photographs / "moved")
    assert plan_of(moved).id == plain
    (photographs / "moved" / "train" / ".hidden").write_text("nothing")
    assert plan_of(moved).id == plain
    (photographs / "moved" / "train" / "0.png").rename(photographs / "moved" / "train" / "9.png")
    assert plan_of(moved).id != plain


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["problem.patch=37"], "0.png has 40 x 50 pixels, and patch + 2 margin is 41"),
        (["problem.train=nowhere"], "problem.train=nowhere: no local copy"),
        (["problem.train={0}/train/../test"], "has the pictures that the units are learnt from"),
        (["problem.train={0}/empty"], "holds no picture"),
        (["problem.train={0}/broken"], "a.png cannot be read as a picture"),
        (["problem.train={0}/train/0.png"], "is not a folder"),
        (["estimator.target_active=0.001"], "of 12 units that is 0.012 units a signal"),
        (["estimator.target_active=1"], "estimator.target_active=1: input should be less than 1"),
        (["estimator.penalty=l2"], "estimator.penalty=l2: input should be 'soft'"),
        (["problem=sem"], "it takes a set of patches, and this is a graph"),
    ],
)
def test_bad_requests_are_answered_while_planning(typed, line, photographs):
    (photographs / "empty").mkdir()
    (photographs / "broken").mkdir()
    (photographs / "broken" / "a.png").write_bytes(b"no picture")
    words = [word for word in cell(photographs) if "problem=sem" not in typed or not word.startswith("problem.")]
    with pytest.raises(ConfigError) as refused:
        plan_of([*words, *(word.format(photographs) for word in typed)])
    assert any(line in str(issue) for issue in refused.value.issues), refused.value.issues


def test_errors_and_shares_by_hand():
    class Half:
        components_ = np.eye(36)[:2]

        def transform(self, X):
            return np.column_stack([X[:, 0], np.zeros(len(X))])

        def inverse_transform(self, codes):
            return codes @ self.components_

    held = np.zeros((2, 36))
    held[0, :2] = 3.0, 4.0
    found = PatchSample(held, held, 6, 0.8).measure(Half())
    assert found["error"] == pytest.approx(16 / 25) and found["mse"] == pytest.approx(16 / 72)
    assert (found["active"], found["active_units"], found["used"], found["sparsity"]) == (0.25, 0.5, 0.5, 0.75)


# -- fields ------------------------------------------------------------------------------------------------------------


def test_gabor_functions_are_found_again(rng):
    side, n = 12, 20
    parameters = np.column_stack(
        [
            rng.uniform(-2, 2, (n, 2)), np.log(rng.uniform(1.2, 2.5, n)), np.log(rng.uniform(1.5, 3.5, n)),
            rng.uniform(0, np.pi, n), rng.uniform(0.12, 0.35, n),
        ]
    )  # fmt: skip
    fields = gabor.gabor(parameters, rng.normal(size=(n, 2)), side)
    fits = gabor.fit(fields, side)
    right = fits.explained > 0.999
    assert right.mean() > 0.9 and fits.explained.min() > 0.9
    assert np.abs(fits.frequency - parameters[:, 5])[right].max() < 0.08
    turned = np.abs(fits.theta - parameters[:, 4])[right]
    assert np.median(np.minimum(turned, np.pi - turned)) < 0.01
    assert fits.explained == pytest.approx(gabor.fit(-5 * fields, side).explained, abs=1e-6)


def test_noise_is_no_gabor_function_and_nothing_is_nothing(rng):
    fits = gabor.fit(np.vstack([rng.normal(size=(40, 64)), np.zeros((1, 64))]), 8)
    assert (fits.explained[:40] < 0.8).all() and fits.explained[40] == 0


def test_slopes_are_derivatives(rng):
    """Of the model at held waves: against central differences."""
    p = np.array([[0.3, -0.4, np.log(1.5), np.log(2.0), 0.7, 0.2]])
    field = rng.normal(size=(1, 64))
    cosine, sine, *_ = gabor._parts(p, 8)
    waves = gabor._waves(cosine, sine, field)
    _, jacobian = gabor._slopes(p, field, 8)
    for k in range(6):
        step = np.zeros_like(p)
        step[0, k] = 1e-6
        slope = (gabor.gabor(p + step, waves, 8) - gabor.gabor(p - step, waves, 8)) / 2e-6
        assert jacobian[0, :, k] == pytest.approx(slope[0], abs=1e-6)


def test_selectivity_is_high_for_stripes_and_nothing_for_a_round_field(rng):
    side = 16
    stripes = gabor.gabor(np.array([[0, 0, np.log(3.0), np.log(3.0), 0.5, 0.25]]), np.array([[1.0, 0.0]]), side)
    place = np.arange(side) - 7.5
    radius = np.hypot(*np.meshgrid(place, place))
    ring = ((1 - radius**2 / 8) * np.exp(-(radius**2) / 8)).reshape(1, -1)
    found = gabor.selectivity(np.vstack([stripes, ring]), side)
    assert found[0] > 0.8 and found[1] < 0.05


def test_shapes_of_few_fields_are_not_told(rng):
    found = shapes(rng.normal(size=(3, 36)), 6, 0.8)
    assert "shape_spread" not in found and 0 <= found["gabor_share"] <= 1
