"""Where a sweep stands, in a few lines of text, from its spec and its ledger alone. Linear in the number of trials."""

from __future__ import annotations

from collections import Counter

from sweeps.eta import seconds_left
from sweeps.ledger import Ledger, TrialRecord
from sweeps.pareto import front_members
from sweeps.planning.show import duration
from sweeps.spec import SweepSpec
from sweeps.table import Score, leading_score


def trials_in_the_end(spec: SweepSpec, ledger: Ledger) -> int:
    """How many trials the sweep will have had: its budget, or what its space holds."""
    return len(ledger.trials) if ledger.exhausted else max(spec.search.most_trials, len(ledger.trials))


def has_ended(spec: SweepSpec, ledger: Ledger) -> bool:
    """Every trial that the sweep will have has ended."""
    return ledger.counts()["pending"] == 0 and len(ledger.trials) >= trials_in_the_end(spec, ledger)


def summary(spec: SweepSpec, ledger: Ledger) -> str:
    """One line: counts."""
    states = Counter(trial.state for trial in ledger.trials.values())
    reused = sum(bool(trial.source) for trial in ledger.trials.values())
    shown = [
        f"{states['finished']} finished" + (f" ({reused} reused)" if reused else ""),
        f"{states['pruned']} pruned",
        f"{states['failed']} failed",
        f"{states['running']} running",
        *([f"{states['planned']} planned"] if states["planned"] else []),
    ]
    at_most = spec.search.most_trials
    known = ", and the space holds no more" if len(ledger.trials) < at_most and ledger.exhausted else ""
    return f"{len(ledger.trials)} of {at_most} trials{known}: {', '.join(shown)}"


def best_so_far(spec: SweepSpec, ledger: Ledger) -> str:
    """The best value of each objective among the trials that have not failed, and the trial that has it; an empty
    string before the first report."""
    objectives = spec.search.objectives
    known = [
        (trial, values)
        for trial in ledger.trials.values()
        if trial.state != "failed" and (values := trial.values(objectives)) is not None
    ]
    parts = []
    for i, objective in enumerate(objectives):
        found = [(objective.sign * value, -t.number, t) for t, values in known if (value := values[i]) is not None]
        if found:
            worth, _, trial = max(found)
            score = Score(objective.sign * worth) if i else leading_score(spec, trial)
            parts.append(f"{objective.metric} {score} (trial {trial.number}{_provisional(trial)})")
    if not parts:
        return ""
    text = f"best so far: {', '.join(parts)}"
    if len(objectives) > 1:
        members = len(front_members(list(ledger.trials.values()), objectives))
        text += f"; {members} on the Pareto front"
    return text


def time_left(spec: SweepSpec, ledger: Ledger) -> float | None:
    """Seconds of training that are left, see ``seconds_left``: as many trials at once as are running now or, where
    none is, as the spec allows."""
    running = sum(trial.state == "running" for trial in ledger.trials.values())
    return seconds_left(
        list(ledger.trials.values()),
        trials_in_the_end(spec, ledger),
        spec.trial.training.steps,
        running or spec.resources.concurrency or 1,
    )


def time_left_text(spec: SweepSpec, ledger: Ledger) -> str:
    """``about 12 min of training left``; an empty string when there is none, or nothing is known."""
    left = time_left(spec, ledger)
    return f"about {duration(left)} of training left" if left else ""


def divergences(ledger: Ledger) -> str:
    """``at chance: 2 trials; nonfinite loss: 1 trial``: how many trials have each kind of divergence in one replicate
    or more; an empty string if none has."""
    counts = Counter(kind for trial in ledger.trials.values() for kind, count in trial.divergence.items() if count)
    return "; ".join(
        f"{kind.replace('_', ' ')}: {count} trial{'s' if count > 1 else ''}" for kind, count in counts.most_common()
    )


def replicates_text(spec: SweepSpec) -> str:
    """What ± stands for in every view; an empty string where a variant is one network."""
    networks = spec.trial.replicates
    if "replicates" in spec.search.space.paths:
        return "mean ± standard deviation over a variant's replicates"
    return f"mean ± standard deviation over n = {networks} replicates" if networks > 1 else ""


def lines(spec: SweepSpec, ledger: Ledger) -> list[str]:
    """Counts, the best so far, and divergence: what every view shows beside its table."""
    texts = (summary(spec, ledger), best_so_far(spec, ledger), divergences(ledger))
    return [text for text in texts if text]


def _provisional(trial: TrialRecord) -> str:
    return "" if trial.state == "finished" else f", {trial.state} at step {trial.step}"
