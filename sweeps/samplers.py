"""The samplers that a spec can name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wmcore.spec import Spec

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Seed = Annotated[int, Field(ge=0)]


class TpeSpec(Spec):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): models good and bad values of the space.

    When to use: by default. It takes every distribution, conditions, early stopping and several objectives.
    """

    kind: Literal["tpe"] = "tpe"
    seed: Seed = 0
    """Seed of the suggestions."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Random trials before the model is used."""
    synchronous: bool = False
    """Suggests whole batches, each from the outcomes of the batches before it alone: without early stopping the table
    of results is then the same however many trials run at once."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Trials of a batch, if synchronous."""


class RandomSpec(Spec):
    """Every point drawn independently (Bergstra and Bengio 2012).

    When to use: as the baseline of a search, and where outcomes must not steer it, as for a description of the space.
    """

    kind: Literal["random"] = "random"
    seed: Seed = 0
    """Seed of the points."""


class GridSpec(Spec):
    """Every cell of a discrete space, once.

    When to use: for few values of few paths, each combination of which belongs in a figure or table.
    """

    kind: Literal["grid"] = "grid"
    seed: Seed | None = None
    """Seed of the order of the cells; null: that of the file, the last path fastest."""


class SobolSpec(Spec):
    """Scrambled Sobol' sequence (Sobol' 1967; Owen 1998): points that leave no gaps, however many there are.

    When to use: instead of random, to cover a space of up to some ten paths evenly. A power of two trials covers best.
    """

    kind: Literal["sobol"] = "sobol"
    seed: Seed = 0
    """Seed of the scrambling."""


class CmaEsSpec(Spec):
    """Covariance matrix adaptation evolution strategy (Hansen and Ostermeier 2001): a moving normal distribution.

    When to use: for 2 to some 20 numeric paths that interact, without conditions, and at least a hundred trials.
    """

    kind: Literal["cmaes"] = "cmaes"
    seed: Seed = 0
    """Seed of the suggestions."""
    startup_trials: Annotated[int, Field(ge=1)] = 1
    """Random trials before the strategy starts from the middle of the space."""
    population: Annotated[int, Field(ge=4)] | None = None
    """Trials of a generation; null: 4 + 3 log(number of paths), rounded down."""


class Nsga2Spec(Spec):
    """Non-dominated sorting genetic algorithm II (Deb et al. 2002): crosses the best of a population.

    When to use: for several objectives and some hundreds of trials; tpe needs fewer.
    """

    kind: Literal["nsga2"] = "nsga2"
    seed: Seed = 0
    """Seed of the suggestions."""
    population: Annotated[int, Field(ge=2)] = 20
    """Trials of a generation; the first one is random."""


AnySampler = Annotated[TpeSpec | RandomSpec | GridSpec | SobolSpec | CmaEsSpec | Nsga2Spec, Field(discriminator="kind")]
SequenceSpec = RandomSpec | GridSpec | SobolSpec
"""Samplers that look at no outcome: trial number -> point (sweeps.sequences)."""


def is_sequence(spec: AnySampler) -> bool:
    """Whether a sampler looks at no outcome, so that its points are a pure function of (seed, trial number)."""
    return isinstance(spec, SequenceSpec)


def replays(spec: AnySampler) -> bool:
    """Whether a sampler keeps a state of its own (generations), made by asking and telling in order: a study is then
    rebuilt by asking and telling again."""
    return isinstance(spec, CmaEsSpec | Nsga2Spec)


def optuna_sampler(spec: AnySampler, seed: int) -> BaseSampler:
    """The sampler of Optuna that a spec names, seeded for one suggestion.

    Args:
        spec: tpe, cmaes or nsga2.
        seed: below 2**32; another one for each suggestion.

    Raises:
        TypeError: a sampler that is a sequence of points.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import CmaEsSampler, NSGAIISampler, TPESampler
    from optuna.samplers.nsgaii import SBXCrossover

    match spec:
        case TpeSpec():
            return TPESampler(seed=seed, n_startup_trials=spec.startup_trials, constant_liar=True)
        case CmaEsSpec():
            return CmaEsSampler(
                seed=seed,
                n_startup_trials=spec.startup_trials,
                popsize=spec.population,
                warn_independent_sampling=False,
            )
        case Nsga2Spec():
            # Optuna's default crossover only recombines values that were tried: here such children are known already.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                crossover = SBXCrossover()
            return NSGAIISampler(seed=seed, population_size=spec.population, crossover=crossover)
    raise TypeError(f"{spec.kind} is a sequence of points")
