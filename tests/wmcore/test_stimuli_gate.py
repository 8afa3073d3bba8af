"""The gate, on features that carry the labels and on features that do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from wmcore.errors import GateError
from wmcore.stimuli.gate import (
    PENALTIES,
    _chosen_penalties,
    _predictions,
    balanced_accuracy,
    enforce,
    judged,
    probe,
    wilson,
)
from wmcore.stimuli.spec import GateSpec

VIEWS = {"a": "train", "b": "train", "c": "train", "d": "select", "e": "select", "f": "test"}


@pytest.fixture(scope="module")
def manifest():
    rows = [
        {
            "category": category,
            "identity": f"{category}_{number:03d}",
            "identity_split": "train" if number < 3 else "select",
            "view": view,
            "view_split": split,
            "location": location,
        }
        for category in ("car", "chair")
        for number in range(4)
        for view, split in VIEWS.items()
        for location in range(4)
    ]
    return pd.DataFrame(rows)


def codes(manifest, *names, noise=0.3, size=200, seed=0):
    """(N, size) features: a random code per label of every named property, plus noise."""
    draws = np.random.default_rng(seed)
    total = noise * draws.normal(size=(len(manifest), size))
    for name in names:
        total += draws.normal(size=(manifest[name].nunique(), size))[pd.factorize(manifest[name])[0]]
    return total


def test_features_that_carry_everything_pass(manifest):
    figures = judged(probe(codes(manifest, "location", "identity"), manifest, "select"), GateSpec())
    assert all(row["accuracy"] == 1.0 and row["passed"] for row in figures.values())
    assert figures["identity"]["chance"] == pytest.approx(1 / 6)
    assert figures["location"]["n"] == 6 * 2 * 4
    # Twelve renders, not 48 images, stand behind the interval.
    assert figures["location"]["ci_low"] == pytest.approx(wilson(1.0, 12)[0])
    enforce(figures, GateSpec())


@pytest.mark.parametrize(("carried", "lost"), [("identity", "location"), ("location", "identity")])
def test_features_without_a_label_fail(manifest, carried, lost):
    figures = judged(probe(codes(manifest, carried), manifest, "select"), GateSpec())
    assert figures[carried]["passed"]
    assert not figures[lost]["passed"]
    assert figures[lost]["accuracy"] < 0.6
    with pytest.raises(GateError, match=rf"{lost} 0\.\d+ \(needs 0\.9.*gate: warn"):
        enforce(figures, GateSpec())
    enforce(figures, GateSpec(on_failure="warn"))
    assert f"{lost} is below its gate" in figures[lost]["warning"]


def test_noise_is_at_chance(manifest):
    """Mean over draws within three standard errors of chance: nothing leaks from the scored images."""
    scores = [probe(codes(manifest, noise=1.0, seed=s), manifest, "select")["category"]["accuracy"] for s in range(20)]
    assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / np.sqrt(len(scores)) + 1e-9


def test_selection_and_novel_identities_do_not_reach_the_fit(manifest):
    """Changing every image outside the fit and the score leaves the figures as they are."""
    features = codes(manifest, "location", "identity", noise=3.0)
    outside = (manifest["identity_split"] != "train") | (manifest["view_split"] == "test")
    changed = np.where(outside.to_numpy()[:, None], 1e3, features)
    assert probe(features, manifest, "select") == probe(changed, manifest, "select")
    scored = (manifest["view_split"] == "select").to_numpy()
    spoilt = np.where(scored[:, None], np.random.default_rng(1).normal(size=features.shape), features)
    before, after = probe(features, manifest, "select"), probe(spoilt, manifest, "select")
    assert [row["penalty"] for row in before.values()] == [row["penalty"] for row in after.values()]
    assert after["identity"]["accuracy"] < before["identity"]["accuracy"]


def test_constant_features_give_chance_and_no_warning(manifest):
    figures = probe(np.ones((len(manifest), 5)), manifest, "select")
    assert figures["category"]["accuracy"] == pytest.approx(0.5)


def test_kernel_ridge_equals_scikit_learn(manifest):
    """Scores of the dual form against the primal one, with an intercept."""
    draws = np.random.default_rng(3)
    fit, score = draws.normal(size=(40, 90)) + 2, draws.normal(size=(300, 90)) + 2
    labels = draws.integers(0, 3, size=40)
    kernel, cross = fit @ fit.T, score @ fit.T
    centred = (fit - fit.mean(axis=0)) @ (fit - fit.mean(axis=0)).T
    for penalty in (0.01, 1.0):
        ridge = Ridge(alpha=penalty * np.trace(centred) / 40).fit(fit, np.eye(3)[labels])
        expected = ridge.predict(score).argmax(axis=1)
        (found,) = _predictions(kernel, cross, labels, [penalty])
        assert np.array_equal(found, expected)


def test_penalty_is_chosen_on_left_out_views():
    """Noise that is shared within a view rewards a strong penalty only when whole views are left out."""
    draws = np.random.default_rng(5)
    views = np.repeat(np.arange(6), 40)
    labels = np.tile(np.arange(4), 60)
    # Few strong directions carry the label in every view; many weak ones repeat within a view alone.
    features = np.eye(4)[labels] + 0.9 * draws.normal(size=(len(labels), 4))
    features = np.concatenate([features, 0.2 * draws.normal(size=(6 * 4, 400))[views * 4 + labels]], axis=1)
    kernel = features @ features.T
    grouped = _chosen_penalties(kernel, {"label": labels}, views)["label"]
    mixed = _chosen_penalties(kernel, {"label": labels}, np.arange(len(labels)) // 4 % 6)["label"]
    assert grouped in PENALTIES
    assert mixed in PENALTIES
    assert grouped >= mixed


def test_balanced_accuracy_weighs_classes_alike():
    truth, guess = np.array(["a"] * 8 + ["b"] * 2), np.array(["a"] * 10)
    assert balanced_accuracy(truth, guess) == 0.5


def test_wilson():
    """Against the closed form at the ends and a tabulated value (10 of 20)."""
    assert wilson(1.0, 10) == pytest.approx((1 / (1 + 1.959964**2 / 10), 1.0))
    assert wilson(0.5, 20) == pytest.approx((0.299, 0.701), abs=1e-3)


def test_without_a_gate_nothing_is_judged(manifest):
    figures = judged(probe(codes(manifest), manifest, "test"), None)
    assert all(row["passed"] is None and row["threshold"] is None and row["warning"] == "" for row in figures.values())
    assert figures["category"]["scored"] == "test views"
    enforce(figures, GateSpec())
