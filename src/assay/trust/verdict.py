"""What a table means, in plain words; nothing is called better than its interval allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from assay.trust.ceiling import Ceiling
from assay.trust.compare import Difference
from assay.trust.gain import Gain
from assay.trust.interval import Interval
from assay.trust.table import Row, Table

__all__ = ["verdict"]

_COUNTING = {"macs": "counting MACs", "params": "counting parameters"}
_CHANCE = (
    "No estimator can be advised: none is shown to rank these architectures better than chance."
)
_UNITS = ((3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def verdict(
    table: Table,
    *,
    budgets_s: Sequence[float] = (600.0, 3600.0),
    refused: Mapping[str, str] | None = None,
    gained: Sequence[Gain] = (),
) -> list[str]:
    """Say which estimator to use, which is not worth its price, and what noise allows.

    For each budget, which is what scoring 1,000 architectures may take, it names `Table.cheapest`,
    and none where all taus within that budget may be 0. It names none at all where trainings of the
    same architectures are not shown to agree, since who is best by such truths is chance, unless
    two rows, or one and its baseline, are surely apart.

    Args:
        table: Of an audit.
        budgets_s: Seconds, ascending; time without limit comes after them.
        refused: Estimator -> why it scored nothing.
        gained: By `assay.trust.gain.gains`; of the longest time is told.
    Returns:
        Sentences, the most useful first.
    """
    why = refused or {}
    refusals = [f"{name} refused: {reason.removesuffix('.')}." for name, reason in why.items()]
    ranked = [row for row in table.rows if row.tau.value is not None]
    if not ranked:
        reasons = dict.fromkeys(row.tau.reason for row in table.rows)
        nothing = f"Nothing can be told: {'; '.join(reasons) or 'there is no estimator'}."
        return [nothing, *refusals]
    real, noise = any(d.real for d in (*table.pairs, *table.against_baseline)), table.ceiling
    ranks = any(row.ranks for row in ranked)
    said = [_advice(table, budgets_s) if ranks else _CHANCE, *_gained(gained)]
    if real:
        said += _against(table.against_baseline)
    elif noise is not None and noise.between.low is not None and noise.between.low <= 0:
        said[0] = _noise(noise)
    elif table.pairs and all(d.alike for d in table.pairs):
        said.insert(0, "All of them rank these architectures alike.")
    elif len(ranked) > 1:
        said.insert(0, f"{table.num} architectures are too few to tell any of them apart.")
    if noise is not None and noise.mean.value is not None:
        said.append(_ceiling(noise))
    said += [
        f"{row.estimator} failed on {row.num_failed} of {table.num} architectures; "
        "they count against it."
        for row in table.rows
        if row.num_failed and row.estimator not in why
    ]
    said += [
        f"{row.estimator} has no tau: {row.tau.reason}."
        for row in table.rows
        if row not in ranked and row.estimator not in why
    ]
    return said + refusals


def _advice(table: Table, budgets_s: Sequence[float]) -> str:
    """Name an estimator for each budget; budgets with the same one share it."""
    tiers = [(f"under {_duration(s)}", table.cheapest(s), table.best(s)) for s in budgets_s]
    tiers.append(("with more time", table.cheapest(), table.best()))
    shared = [list(group) for _, group in groupby(tiers, lambda tier: _named(tier[1]))]
    parts = []
    for when, row, best in (group[-1] for group in shared):
        if row is None:
            what = "none scores 1,000 architectures"
        else:
            what = f"use {_use(row, best)}" if row.ranks else "none is shown to beat chance"
        parts.append(f"{'whatever the budget' if len(shared) == 1 else when} {what}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _named(row: Row | None) -> str | bool:
    """Return the name of a row that can be advised, else whether there is one at all."""
    return row.estimator if row is not None and row.ranks else row is None


def _use(row: Row, best: Row | None) -> str:
    why = ""
    if best is not None and best != row:
        why = f", the cheapest not shown to be worse than {best.estimator}"
    return (
        f"{row.estimator}{why} (tau {row.tau}; 1,000 architectures in {_duration(row.thousand_s)})"
    )


def _against(gaps: Sequence[Difference]) -> list[str]:
    """Say in a sentence each who is better than the baseline, who is not, and who is worse."""
    told: dict[str, list[str]] = {}
    for gap in gaps:
        begins = f"{_compared(gap)} {_COUNTING.get(gap.other, gap.other)} here"
        told.setdefault(begins, []).append(f"{gap.one} {_figures(gap)}")
    return [f"{begins} (difference in tau): {'; '.join(who)}." for begins, who in told.items()]


def _compared(gap: Difference) -> str:
    if gap.tau.low is None:
        return "Not to be told from"
    if not gap.real:
        return "Not better than"
    return "Better than" if (gap.tau.value or 0.0) > 0 else "Worse than"


def _figures(gap: Difference) -> str:
    if gap.tau.low is None:
        return str(gap.tau)
    value = gap.tau.value or 0.0
    chance = gap.tau.excludes(0.0) and not gap.real and value > 0
    more = f", which does not outlast Holm's correction (p {gap.p_holm:.2f})" if chance else ""
    return f"{value:z.2f}, {gap.tau.low:z.2f} to {gap.tau.high:z.2f}{more}"


def _noise(ceiling: Ceiling) -> str:
    return (
        "No estimator can be advised: trainings of the same architectures are not shown to agree "
        f"(tau {ceiling.between}), so these truths are mostly noise; train them longer, over more "
        "seeds, or judge them on more validation samples."
    )


def _ceiling(ceiling: Ceiling) -> str:
    return (
        f"Two trainings of the same architectures agree at tau {ceiling.between}; against truths "
        f"of {ceiling.num_seeds:g} seeds nothing can be expected above {ceiling.mean}."
    )


def _gained(gained: Sequence[Gain]) -> list[str]:
    """Say what training at random gains in the longest time, and who is shown to gain more."""
    longest = [gain for gain in gained if gain.trainings == gained[-1].trainings]
    if not longest:
        return []
    chance, *others = longest
    when = f"the time of {chance.trainings} trainings ({_duration(chance.time_s)})"
    said = [
        f"In {when} training {chance.trainings} random architectures and keeping the best gains "
        f"{_fine(chance.gain)} over a random one"
        + (", which may be nothing" if not chance.gain.excludes(0.0) else "")
    ]
    for word, sign in (("more", 1), ("less", -1)):
        shown = [g for g in others if g.real and sign * (g.more.value or 0.0) > 0]
        by = ", by ".join(f"{g.estimator} ({_fine(g.more)})" for g in shown)
        if shown:
            said.append(f"{word} is gained by {by}")
        elif others and sign > 0:
            said.append("by no estimator more is shown to be gained")
    return ["; ".join(said) + "."]


def _fine(interval: Interval) -> str:
    """Write a difference of truths, which may be small."""
    numbers = (interval.value, interval.low, interval.high)
    value, low, high = (None if n is None else f"{n:.2g}" for n in numbers)
    return f"{value}, no interval" if low is None else f"{value}, {low} to {high}"


def _duration(seconds: float) -> str:
    """Write seconds in the largest unit of which there is one: "10 minutes", "1.5 hours"."""
    if seconds < 0.05:
        return "under 0.1 seconds"
    size, unit = next(((size, u) for size, u in _UNITS if seconds >= size), _UNITS[-1])
    amount = f"{seconds / size:.{0 if seconds >= 10 * size else 1}f}".removesuffix(".0")
    return f"{amount} {unit}{'' if amount == '1' else 's'}"
