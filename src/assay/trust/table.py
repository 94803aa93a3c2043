"""The table of an audit: what each estimator costs here, and how well it ranks here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from assay.errors import InvalidSetting, NotFinite, nearest
from assay.trust.bootstrap import Judged, judge
from assay.trust.ceiling import Ceiling, noise_ceiling
from assay.trust.compare import Difference, compare
from assay.trust.correlation import STATISTICS, Vector
from assay.trust.interval import Interval

__all__ = ["Price", "Row", "Table"]


@dataclass(frozen=True)
class Price:
    """What an estimator cost here, measured.

    Attributes:
        prepare_s: Seconds that are paid once.
        each_s: Seconds for each architecture.
        kind: Name by which claims know it; None for that of its row, "" where none was published.
    """

    prepare_s: float
    each_s: float
    kind: str | None = None


@dataclass(frozen=True)
class Row:
    """One estimator.

    Attributes:
        estimator: Its name.
        baseline: Whether it is one that others must beat.
        prepare_s: Seconds that are paid once.
        each_s: Seconds for each architecture.
        num_failed: Architectures that it could not score; they rank last, tied.
        tau: Kendall's tau-b against the truth.
        rho: Spearman's rho.
        tau_top: Tau-b within the better half by truth.
        precision_10: Share of its best tenth that is of the best tenth by truth.
        regret_1: Best truth of all less the truth of its top pick, in units of the truth.
        regret_5: The same for the best of its top 5.
        speedup: Seconds to train 1,000 architectures ÷ `thousand_s`; None where it is not known, or
            nothing was scored.
        claim: What was published of its speed or worth; "" for nothing.
    """

    estimator: str
    baseline: bool
    prepare_s: float
    each_s: float
    num_failed: int
    tau: Interval
    rho: Interval
    tau_top: Interval
    precision_10: Interval
    regret_1: Interval
    regret_5: Interval
    speedup: float | None = None
    claim: str = ""

    @property
    def thousand_s(self) -> float:
        """Seconds to score 1,000 architectures, preparation included."""
        return self.prepare_s + 1000 * self.each_s

    @property
    def ranks(self) -> bool:
        """Whether it is shown to rank better than chance, as far as can be told."""
        least = self.tau.value if self.tau.low is None else self.tau.low
        return least is not None and least > 0


@dataclass(frozen=True)
class Table:
    """All estimators, judged by the same truths.

    Attributes:
        num: Architectures with a truth.
        rows: By falling tau; those without a tau come last.
        pairs: Each two rows that have a tau, the one of higher tau first; corrected together.
        against_baseline: Each row that is no baseline against the best one; corrected together.
        ceiling: What the noise of the truths allows; None where each has one seed.
    """

    num: int
    rows: tuple[Row, ...]
    pairs: tuple[Difference, ...]
    against_baseline: tuple[Difference, ...]
    ceiling: Ceiling | None

    @classmethod
    def make(
        cls,
        truths: Mapping[str, Sequence[float]],
        scores: Mapping[str, Mapping[str, float | None]],
        costs: Mapping[str, Price],
        *,
        baselines: Sequence[str] = ("params", "macs"),
        claims: Mapping[str, str] | None = None,
        train_s: float | None = None,
        seed: int = 0,
        resamples: int = 1000,
    ) -> Table:
        """Judge estimators by truths.

        Args:
            truths: Architecture -> one value a seed, higher is better, all in the same order of
                seeds; their mean is the truth.
            scores: Estimator -> architecture -> score, higher is better; None where it failed.
                Architectures without a truth are passed over.
            costs: Estimator -> what it cost.
            baselines: Estimators that others must beat.
            claims: Kind of estimator, see `Price` -> what was published.
            train_s: Measured seconds of training one architecture once; None if none was trained.
            seed: Of the resamples.
            resamples: How many.
        Raises:
            InvalidSetting: a truth without values, a baseline without scores, scores without costs,
                an architecture that an estimator says nothing of, or too few resamples.
            NotFinite: a truth or a score is NaN or infinite.
        """
        _check(truths, scores, costs, baselines)
        truth = np.array([_mean(values) for values in truths.values()], np.float64)
        said = {name: _scores(truths, given) for name, given in scores.items()}
        judged = judge(truth, said, seed=seed, resamples=resamples)
        rows = [
            _row(name, judged[name], costs[name], said[name], name in baselines, train_s, claims)
            for name in scores
        ]
        rows.sort(key=_place)
        ranked = [row for row in rows if row.tau.value is not None]
        names = [row.estimator for row in ranked]
        bar = next((row.estimator for row in ranked if row.baseline), None)
        others = [row.estimator for row in ranked if not row.baseline] if bar else []
        several = sum(len(values) > 1 for values in truths.values()) > 1
        return cls(
            len(truths),
            tuple(rows),
            compare(judged, list(combinations(names, 2))),
            compare(judged, [(name, str(bar)) for name in others]),
            noise_ceiling(truths, seed=seed, resamples=resamples) if several else None,
        )

    def best(self, budget_s: float = math.inf) -> Row | None:
        """Return the row of highest tau that scores 1,000 architectures within the budget.

        Args:
            budget_s: Seconds.
        Returns:
            None where no row with a tau fits.
        """
        return next(iter(self._within(budget_s)), None)

    def cheapest(self, budget_s: float = math.inf) -> Row | None:
        """Return the cheapest row within the budget whose difference to the best there may be 0.

        That is, both rank alike or the interval of their difference includes 0; a difference
        without an interval will do only where the best has no interval of its own. Where the best
        is shown to rank better than chance, so is this row. Of rows that take less than a second,
        which nobody waits for, the one of highest tau.

        Args:
            budget_s: Seconds to score 1,000 architectures.
        Returns:
            None where no row with a tau fits.
        """
        best = self.best(budget_s)
        if best is None:
            return None
        told = best.tau.low is not None
        held = [gap for gap in self.pairs if gap.one == best.estimator]
        apart = {gap.other for gap in held if _apart(gap, told=told)}
        near = [row for row in self._within(budget_s) if row.estimator not in apart]
        near = [row for row in near if row.ranks] or near
        return min(near, key=lambda row: max(row.thousand_s, 1.0))  # rows come best first

    def _within(self, budget_s: float) -> list[Row]:
        return [r for r in self.rows if r.tau.value is not None and r.thousand_s <= budget_s]

    def to_json(self) -> str:
        """Return the table as JSON, each figure with its interval or its reason."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Read what `to_json` wrote.

        Raises:
            InvalidSetting: it is something else.
        """
        try:
            given = json.loads(text)
            return cls(
                given["num"],
                tuple(_read(Row, row) for row in given["rows"]),
                tuple(_read(Difference, row) for row in given["pairs"]),
                tuple(_read(Difference, row) for row in given["against_baseline"]),
                None if given["ceiling"] is None else _read(Ceiling, given["ceiling"]),
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidSetting(
                f"this is no table of an audit ({error!r}); give what Table.to_json wrote"
            ) from error


def _check(
    truths: Mapping[str, Sequence[float]],
    scores: Mapping[str, Mapping[str, float | None]],
    costs: Mapping[str, Price],
    baselines: Sequence[str],
) -> None:
    for key, values in truths.items():
        if len(values) == 0:
            raise InvalidSetting(f"architecture {key!r} has no truth; leave it out")
        if not all(map(math.isfinite, values)):
            raise NotFinite(f"the truths of {key!r} are {list(values)}; leave out what diverged")
    for name in baselines:
        if name not in scores:
            raise InvalidSetting(
                f"no scores of the baseline {name!r}, which the others must beat; "
                f"{nearest(name, scores)}"
            )
    for name, given in scores.items():
        if name not in costs:
            raise InvalidSetting(f"{name!r} has scores but no costs; {nearest(name, costs)}")
        for key in truths:
            if key not in given:
                raise InvalidSetting(f"{name!r} says nothing of {key!r}; give None if it failed")
            score = given[key]
            if score is not None and not math.isfinite(score):
                raise NotFinite(f"{name!r} scores {key!r} {score}; give None if it failed")


def _mean(values: Sequence[float]) -> float:
    """Return the mean to twelve digits, so that equal means of different values are equal."""
    return float(f"{math.fsum(values) / len(values):.12g}")


def _scores(truths: Mapping[str, Any], given: Mapping[str, float | None]) -> Vector:
    return np.array([-math.inf if given[k] is None else given[k] for k in truths], np.float64)


def _row(
    name: str,
    judged: Judged,
    price: Price,
    scores: Vector,
    baseline: bool,
    train_s: float | None,
    claims: Mapping[str, str] | None,
) -> Row:
    thousand_s = price.prepare_s + 1000 * price.each_s
    kind = name if price.kind is None else price.kind
    timed = thousand_s > 0 and np.isfinite(scores).any()
    return Row(
        name,
        baseline,
        price.prepare_s,
        price.each_s,
        int(np.isneginf(scores).sum()),
        **{figure: judged.figures[figure] for figure in STATISTICS},
        speedup=1000 * train_s / thousand_s if train_s is not None and timed else None,
        claim=(claims or {}).get(kind, ""),
    )


def _apart(gap: Difference, *, told: bool) -> bool:
    """Whether the other is not to stand in for the one, whose own interval is `told` or not."""
    if gap.tau.low is None:  # the other scored too few, or nearly all alike
        return told and not gap.alike
    return gap.tau.excludes(0.0)


def _place(row: Row) -> tuple[float, float, str]:
    """Sort by tau, then by cost."""
    tau = -math.inf if row.tau.value is None else row.tau.value
    return (-tau, row.thousand_s, row.estimator)


def _read(kind: Any, given: Mapping[str, Any]) -> Any:
    """Make a dataclass from its JSON; every mapping in it is an interval."""
    fields = {k: Interval(**v) if isinstance(v, dict) else v for k, v in given.items()}
    return kind(**fields)
