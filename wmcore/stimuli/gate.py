"""The gate before training: can a linear probe read location, category and identity from the frozen features?

The probe is ridge regression onto class indicators (Hoerl & Kennard 1970, doi 10.2307/1267351), with features
standardised by the training images and its penalty chosen by leaving training views out. It is fitted on training
views of trained identities and scored on views that it has not met. Shapes: N images, D features, K classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from wmcore.errors import GateError
from wmcore.stimuli.spec import LOCATION_CENTERS_PX, GateSpec

PROPERTIES = ("location", "category", "identity")
PENALTIES = tuple(10.0**power for power in range(-4, 2))
"""Ridge penalties, in units of the mean eigenvalue of the kernel."""
MAX_FOLDS = 8


def probe(features: np.ndarray, manifest: pd.DataFrame, scored: str) -> dict[str, dict[str, Any]]:
    """Property -> figures of a linear probe.

    Args:
        features: (N, ...) features, in the manifest's order.
        manifest: table of an image bank.
        scored: ``select`` or ``test``: the split of the views on which the probe is scored.

    Returns:
        accuracy (balanced), ci_low and ci_high (Wilson 95 %, each object and view counted once, because its four
        placements are not independent), n (images), chance, penalty, scored (``<view split> views``).
    """
    trained = (manifest["identity_split"] == "train").to_numpy()
    fit_rows = np.flatnonzero(trained & (manifest["view_split"] == "train").to_numpy())
    score_rows = np.flatnonzero(trained & (manifest["view_split"] == scored).to_numpy())
    flat = features.reshape(len(features), -1).astype(np.float64)
    mean, sd = flat[fit_rows].mean(axis=0), flat[fit_rows].std(axis=0)
    # A feature that never varies carries nothing, and must not be divided by zero.
    scale = np.where(sd > 1e-12, sd, np.inf)
    x_fit, x_score = (flat[fit_rows] - mean) / scale, (flat[score_rows] - mean) / scale
    kernel, cross = x_fit @ x_fit.T, x_score @ x_fit.T
    folds = _view_folds(manifest["view"].to_numpy()[fit_rows])
    labels = {name: manifest[name].to_numpy() for name in PROPERTIES}
    penalties = _chosen_penalties(kernel, {name: values[fit_rows] for name, values in labels.items()}, folds)
    renders = len(score_rows) // len(LOCATION_CENTERS_PX)
    figures = {}
    for name, values in labels.items():
        predicted = _predictions(kernel, cross, values[fit_rows], [penalties[name]])[0]
        accuracy = balanced_accuracy(values[score_rows], predicted)
        low, high = wilson(accuracy, renders)
        figures[name] = {
            "accuracy": accuracy,
            "ci_low": low,
            "ci_high": high,
            "n": len(score_rows),
            "chance": 1 / len(np.unique(values[fit_rows])),
            "penalty": penalties[name],
            "scored": f"{scored} views",
        }
    return figures


def judged(figures: dict[str, dict[str, Any]], gate: GateSpec | None) -> dict[str, dict[str, Any]]:
    """The figures with ``threshold`` and ``passed`` (None without a gate) and ``warning`` (empty if there is none)."""
    result = {}
    for name, row in figures.items():
        threshold = None if gate is None else getattr(gate, name)
        passed = None if threshold is None else row["accuracy"] >= threshold
        warning = "" if passed in (None, True) else f"{name} is below its gate: {row['accuracy']:.3f} < {threshold:.2f}"
        result[name] = {**row, "threshold": threshold, "passed": passed, "warning": warning}
    return result


def enforce(figures: dict[str, dict[str, Any]], gate: GateSpec) -> None:
    """Stops if a judged figure failed, unless the gate only warns.

    Raises:
        GateError: with the figures and what can be done.
    """
    failed = [name for name, row in figures.items() if row["passed"] is False]
    if not failed or gate.on_failure == "warn":
        return
    shown = "; ".join(
        f"{name} {row['accuracy']:.3f} (needs {row['threshold']:.2f}, chance {row['chance']:.3f}, n = {row['n']})"
        for name, row in figures.items()
        if row["threshold"] is not None
    )
    raise GateError(
        f"The frozen features do not carry {' and '.join(failed)} well enough to train on. Balanced accuracy of a "
        f"linear probe on {next(iter(figures.values()))['scored']}: {shown}. Remedies: an earlier or finer layer "
        "(backbone.layer, backbone.pool_size), more training views or a smaller arc "
        "(views.train_views, views.yaw_span_rad), colour (objects.color: true), fewer identities; or "
        "`gate: warn` to go on nevertheless."
    )


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes of ``truth``."""
    return float(np.mean([np.mean(predicted[truth == value] == value) for value in np.unique(truth)]))


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of ``count`` (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _view_folds(views: np.ndarray) -> np.ndarray:
    """(N,) fold of each image; all images of a view share one. One view alone is split at random by position."""
    names = np.unique(views)
    if len(names) == 1:
        return np.arange(len(views)) % 2
    number = {name: index % min(MAX_FOLDS, len(names)) for index, name in enumerate(names)}
    return np.array([number[view] for view in views])


def _chosen_penalties(kernel: np.ndarray, labels: dict[str, np.ndarray], folds: np.ndarray) -> dict[str, float]:
    """Property -> the largest penalty with the best accuracy over the held-out folds."""
    right = {name: np.zeros(len(PENALTIES)) for name in labels}
    for fold in np.unique(folds):
        kept, left = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        within, across = kernel[np.ix_(kept, kept)], kernel[np.ix_(left, kept)]
        factors = np.linalg.eigh(_centred(within))
        for name, values in labels.items():
            for position, guess in enumerate(_predictions(within, across, values[kept], PENALTIES, factors)):
                right[name][position] += np.sum(guess == values[left])
    return {name: PENALTIES[len(PENALTIES) - 1 - int(np.argmax(score[::-1]))] for name, score in right.items()}


def _centred(kernel: np.ndarray) -> np.ndarray:
    """The kernel of features whose mean is taken off."""
    return kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()


def _predictions(
    kernel: np.ndarray,
    cross: np.ndarray,
    labels: np.ndarray,
    penalties: list[float] | tuple[float, ...],
    factors: tuple[np.ndarray, np.ndarray] | Any = None,
) -> list[np.ndarray]:
    """One array of predicted labels per penalty: kernel ridge onto class indicators, with an intercept.

    Args:
        kernel: (N, N) inner products of the images to fit on.
        cross: (M, N) inner products of the images to predict with them.
        factors: eigenvalues and eigenvectors of the centred kernel, if they are known already.
    """
    values, vectors = np.linalg.eigh(_centred(kernel)) if factors is None else factors
    values = np.maximum(values, 0)
    classes, index = np.unique(labels, return_inverse=True)
    indicators = np.eye(len(classes))[index]
    # A class counts by its weight in the mean, so that rare classes are not drawn to the common ones.
    projected = vectors.T @ (indicators - indicators.mean(axis=0))
    across = cross - cross.mean(axis=1)[:, None] - kernel.mean(axis=0) + kernel.mean()
    rotated = across @ vectors
    unit = values.mean() or 1.0
    return [
        classes[np.argmax(rotated @ (projected / (values + penalty * unit)[:, None]) + indicators.mean(axis=0), axis=1)]
        for penalty in penalties
    ]
