"""The additive model of a state: what each of several variables adds to it, fitted together.

h = mu + sum_p M_p[y_p] + e, by least squares with sum_k M_p[k] = 0 for every variable p (sequence_recall.md section
6.0). Means of the states that share the value of one variable would do only if the variables were independent: items
drawn without replacement are not, and such means mix the ranks. Shapes: N trials, P variables, K values, H units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Additive:
    """A fitted model.

    Attributes:
        mean: (H,) mu.
        effects: (P, K, H) M_p[k]; each M_p sums to 0 over k.
        determined: whether the trials determine all of it; otherwise it is the smallest of the solutions.
    """

    mean: np.ndarray
    effects: np.ndarray
    determined: bool

    @classmethod
    def fit(cls, states: np.ndarray, labels: np.ndarray, values: int) -> Additive:
        """Fits (N, H) states by (N, P) labels in 0..K-1, with ``values`` = K."""
        design = coding(labels, values)
        found, _, rank, _ = np.linalg.lstsq(design, states, rcond=None)
        return cls(found[0], effects_of(found, labels.shape[1]), bool(rank == design.shape[1]))

    def predict(self, labels: np.ndarray) -> np.ndarray:
        """(N, H) mu + sum_p M_p[y_p]."""
        return self.mean + self.part(labels)

    def part(self, labels: np.ndarray, but: int | None = None) -> np.ndarray:
        """(N, H) what the variables add, without one of them if ``but`` names it."""
        ranks = [p for p in range(labels.shape[1]) if p != but]
        return sum((self.effects[p, labels[:, p]] for p in ranks), np.zeros((len(labels), self.effects.shape[2])))


def coding(labels: np.ndarray, values: int) -> np.ndarray:
    """(N, 1 + P (K - 1)): a constant, and each variable coded so that its effects sum to zero."""
    one_hot = (labels[:, :, None] == np.arange(values)).astype(float)
    contrasts = one_hot[:, :, :-1] - one_hot[:, :, -1:]
    return np.concatenate([np.ones((len(labels), 1)), contrasts.reshape(len(labels), -1)], axis=1)


def effects_of(coefficients: np.ndarray, variables: int) -> np.ndarray:
    """(..., P, K, H) M_p of (..., 1 + P (K - 1), H) coefficients of ``coding``; each M_p sums to 0 over k."""
    *lead, _, units = coefficients.shape
    free = coefficients[..., 1:, :].reshape(*lead, variables, -1, units)
    return np.concatenate([free, -free.sum(axis=-2, keepdims=True)], axis=-2)
