"""Codes of several variables at one moment: overlap of their subspaces, gain and shape, cross-validated.

Shapes: R estimates (all groups, then without one block of them), S splits, 2 halves, P variables, K values, H units,
D draws. What is estimated in one half is tested in the other, both ways, and averaged over the splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from wmcore.analyses.angles import basis, principal_angles, random_bases, reliable_dimensions, variance_ratio
from wmcore.analyses.resampling import interval, jackknife_interval
from wmcore.analyses.rows import row

RELIABLE_SHARE = 0.9
_LEAST_RELIABILITY = 0.2  # below it, dividing by the reliability says nothing
_SIMPLEX = 0.1  # relative spread of the distances below which values are as good as equally far apart


@dataclass(frozen=True)
class Codes:
    """What each variable adds to the states at one moment.

    Attributes:
        variables: names of the P variables.
        effects: (R, S, 2, P, K, H) M_p of each half.
        bases: (R, S, 2, P, K - 1, H) of them, by ``basis`` or ``span``.
        root: (H, H) square root of the covariance of the states.
        n: groups.
    """

    variables: tuple[str, ...]
    effects: np.ndarray
    bases: np.ndarray
    root: np.ndarray
    n: int

    def dimensions(self) -> dict[str, int]:
        """Name of each choice of d -> d: all that K values span, and those that are reliable."""
        full = self.bases.shape[-2]
        first, other = self.effects[0], self.effects[0, :, ::-1]
        reliable = reliable_dimensions(first, other, self.bases[0], RELIABLE_SHARE)
        return {"full": full} | ({"reliable": reliable} if reliable < full else {})

    def own_share(self) -> np.ndarray:
        """(R, P) V_{p->p} at d = K - 1: the share of M_p's variance in its own subspace of the other half."""
        other = self.bases[:, :, ::-1].swapaxes(-1, -2)
        inside = ((self.effects @ other) ** 2).sum(axis=(-1, -2))
        return _averaged(inside / (self.effects**2).sum(axis=(-1, -2)))

    def expected_share(self, projector: np.ndarray) -> np.ndarray:
        """(R, P) V expected of the subspaces that have a mean (H, H) projector."""
        inside = ((self.effects @ projector) * self.effects).sum(axis=(-1, -2))
        return _averaged(inside / (self.effects**2).sum(axis=(-1, -2)))

    def mean(self) -> np.ndarray:
        """(P, K, H) M_p averaged over halves and splits."""
        return self.effects[0].mean(axis=(0, 1))


def overlap_rows(
    codes: Codes, shuffled: np.ndarray, draws: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of V, its normalised form, O and the angles for every pair of variables and both choices of d.

    Args:
        codes: with the bases of ``basis``.
        shuffled: (D, 2, P, K, H) M_p of halves whose labels were shuffled between the groups.
        draws: random subspaces of each null.
    """
    rows = []
    for name, d in codes.dimensions().items():
        rows += _overlap_rows(codes, shuffled, name, d, draws, generator)
    return rows


def _overlap_rows(
    codes: Codes, shuffled: np.ndarray, subspace: str, d: int, draws: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    units = codes.effects.shape[-1]
    bases = codes.bases[..., :d, :]
    other = bases[:, :, ::-1]
    ratio = _averaged(variance_ratio(codes.effects, other))  # (R, P, P)
    angles = principal_angles(bases, other)
    shared = _averaged((np.cos(angles) ** 2).mean(axis=-1))
    mean_angle, least_angle = _averaged(angles.mean(axis=-1)), _averaged(angles.min(axis=-1))

    inside = random_bases(d, codes.root, 2 * draws, generator)
    anywhere = random_bases(d, np.eye(units), 2 * draws, generator)
    projector = np.einsum("ndh,ndk->hk", inside, inside, optimize=True) / len(inside)
    expected = codes.expected_share(projector)  # (R, P)
    null_ratio = variance_ratio(codes.mean(), inside)  # (P, 2 D)
    null_angles, random_angles = (_pair_angles(own) for own in (inside, anywhere))  # (D, d)
    shuffled_bases = basis(shuffled, d)
    shuffled_draws = variance_ratio(shuffled, shuffled_bases[:, ::-1]).mean(axis=1)  # (D, P, P)
    shuffled_ratio = shuffled_draws.mean(axis=0)
    shuffled_angles = principal_angles(shuffled_bases, shuffled_bases[:, ::-1])

    rows = []

    def add(measure: str, values: np.ndarray, p: int, q: int, null: np.ndarray, ceiling: float, **columns: Any) -> None:
        pair = {"variable": codes.variables[p], "other": codes.variables[q], "distance": abs(p - q)}
        chosen = {"subspace": subspace, "dimensions": d}
        named = pair | chosen | columns
        rows.append(row(measure, values[0], jackknife_interval(values), codes.n, null, ceiling, **named))

    own = np.einsum("rpp->rp", ratio)
    random_ratio = variance_ratio(codes.mean(), anywhere)
    count = len(codes.variables)
    for p in range(count):
        for q in range(count):
            nulls = {"null_random": d / units, "null_shuffled": shuffled_ratio[p, q]}
            add("variance_ratio", ratio[:, p, q], p, q, null_ratio[p], own[0, p], **nulls)
    for p, q in permutations(range(count), 2):
        references = {
            "covariance": (expected[:, p], null_ratio[p]),
            "random": (np.full(len(own), d / units), random_ratio[p]),
            "shuffled": (np.full(len(own), shuffled_ratio[p, q]), shuffled_draws[:, p, q]),
        }
        for reference, (by_chance, drawn) in references.items():
            if jackknife_interval(own[:, p])[0] <= np.quantile(drawn, 0.975):
                continue  # the code is not found again in its own subspace: there is nothing to normalise by
            normalised = (ratio[:, p, q] - by_chance) / (own[:, p] - by_chance)
            null = (drawn - drawn.mean()) / (own[0, p] - by_chance[0])
            named = {"reference": reference, "relation": _relation(normalised, null)}
            add("normalised_overlap", normalised, p, q, null, 1.0, **named)
    for p in range(count):
        for q in range(p, count):
            pairs = shuffled_angles[..., p, q, :]
            for measure, values, of in (
                ("overlap", shared, lambda theta: (np.cos(theta) ** 2).mean(axis=-1)),
                ("mean_angle", mean_angle, lambda theta: theta.mean(axis=-1)),
                ("least_angle", least_angle, lambda theta: theta.min(axis=-1)),
            ):
                nulls = {
                    "null_random": d / units if measure == "overlap" else of(random_angles).mean(),
                    "null_shuffled": of(pairs).mean(),
                }
                ceiling = (values[0, p, p] + values[0, q, q]) / 2
                symmetric = (values[:, p, q] + values[:, q, p]) / 2
                add(measure, symmetric, p, q, of(null_angles), ceiling, **nulls)
    return rows


def _relation(normalised: np.ndarray, null: np.ndarray) -> str:
    """Where the 95 % interval of (R,) normalised overlaps lies beside the 95 % range of their (D,) null."""
    low, high = jackknife_interval(normalised)
    least, most = interval(null)
    return "shared" if low > most else "more_orthogonal" if high < least else "as_by_chance"


def gain_rows(codes: Codes) -> list[dict[str, Any]]:
    """Rows of ||M_p||_F over that of the first variable, each from the product of the halves (free of noise)."""
    power = _averaged((codes.effects * codes.effects[:, :, ::-1]).sum(axis=(-1, -2)))  # (R, P)
    if not (power > 0).all():
        return []  # some code is noise alone
    rows = []
    for p in range(1, len(codes.variables)):
        gain = np.sqrt(power[:, p] / power[:, 0])
        pair = {"variable": codes.variables[p], "other": codes.variables[0], "distance": p}
        rows.append(row("gain", gain[0], jackknife_interval(gain), codes.n, 1.0, **pair))
    return rows


def shape_rows(codes: Codes, draws: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of the correlation between the distances among the values of two codes, over its reliability.

    The null pairs the values at random. Where all values are about equally far apart (a regular simplex, to which
    one-hot items tend) every code has the same shape, whatever else it does: such rows carry a warning.
    """
    values = codes.effects.shape[-2]
    if values < 4:
        return []  # three distances or fewer have no shape worth a correlation
    pairs = np.array(list(combinations(range(values), 2)))
    shape = _standardised(_distances(codes.effects, pairs))  # (R, S, 2, P, pairs)
    agreement = _averaged(shape @ shape[:, :, ::-1].swapaxes(-1, -2))  # (R, P, P)
    orders = generator.permuted(np.tile(np.arange(values), (draws, 1)), axis=1)
    square = np.zeros((values, values))
    whole = _distances(codes.mean(), pairs)  # (P, pairs)
    spread = whole.std(axis=1) / whole.mean(axis=1)
    rows = []
    for p, q in combinations(range(len(codes.variables)), 2):
        reliability = np.sqrt(np.maximum(agreement[:, p, p] * agreement[:, q, q], 0))
        square[pairs[:, 0], pairs[:, 1]] = square[pairs[:, 1], pairs[:, 0]] = _standardised(whole[q])
        null = square[orders[:, pairs[:, 0]], orders[:, pairs[:, 1]]] @ _standardised(whole[p])
        warning = []
        if min(spread[p], spread[q]) < _SIMPLEX:
            warning.append("the values are about equally far apart (a simplex), so that equal shapes say little")
        pair = {"variable": codes.variables[p], "other": codes.variables[q], "distance": q - p}
        if reliability.min() < _LEAST_RELIABILITY:
            warning.append("unreliable shapes: not divided by their reliability")
            reliability = np.ones_like(reliability)
        shown = agreement[:, p, q] / reliability
        bounds = jackknife_interval(shown)
        rows.append(row("shape_correlation", shown[0], bounds, codes.n, null, 1.0, "; ".join(warning), **pair))
    return rows


def share_rows(
    measure: str, codes: Codes, bases: np.ndarray, ceiling: np.ndarray, draws: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of the share of each code's variance in a given subspace; null: in random ones inside the covariance.

    Args:
        bases: (d, H), or (R, S, 2, P, d, H) of which a half's code meets the basis of the other half.
        ceiling: (P,) of each code.
    """
    other = bases[:, :, ::-1] if bases.ndim > 3 else bases
    d = bases.shape[-2]
    inside = ((codes.effects @ other.swapaxes(-1, -2)) ** 2).sum(axis=(-1, -2))
    share = _averaged(inside / (codes.effects**2).sum(axis=(-1, -2)))  # (R, P)
    null = variance_ratio(codes.mean(), random_bases(d, codes.root, draws, generator))
    low, high = jackknife_interval(share)
    return [
        row(
            measure,
            share[0, p],
            (low[p], high[p]),
            codes.n,
            null[p],
            ceiling[p],
            variable=name,
            dimensions=d,
            null_random=d / codes.effects.shape[-1],
        )
        for p, name in enumerate(codes.variables)
    ]


def _averaged(values: np.ndarray) -> np.ndarray:
    """(R, S, 2, ...) -> (R, ...)"""
    return values.mean(axis=(1, 2))


def _pair_angles(bases: np.ndarray) -> np.ndarray:
    """(D, d) principal angles between the first and the second half of (2 D, d, H) bases."""
    half = len(bases) // 2
    return principal_angles(bases[:half, None], bases[half:, None])[:, 0, 0]


def _distances(effects: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(..., pairs) Euclidean distances between the values of (..., K, H) effects."""
    inner = effects @ effects.swapaxes(-1, -2)
    norms = np.diagonal(inner, axis1=-2, axis2=-1)
    first, second = pairs.T
    return np.sqrt(np.maximum(norms[..., first] + norms[..., second] - 2 * inner[..., first, second], 0))


def _standardised(values: np.ndarray) -> np.ndarray:
    """With mean 0 and norm 1 along the last axis, so that a product is a correlation."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
