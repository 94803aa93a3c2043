"""What a strategy learns as the run goes on: shown live, kept in the study, warned of once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from typing import Any

from assay.contracts import History, Learning
from assay.report.units import amount, plain_name
from assay.run.events import Event
from assay.run.loop import was_judged
from assay.run.steps import Step, Steps
from assay.strategies.learned.symptoms import advised, idle_options, symptoms
from assay.study.store import Study

__all__ = ["Watch"]


class Watch:
    """Follows a strategy that has `learned`; see `Strategy`.

    What it keeps is a document that is written anew each time, so a kill leaves no moment twice.

    Args:
        strategy: Which learns.
        history: Of the search.
        study: Where "learning" is kept: unit, total, records, warnings.
        steps: Tells warnings.
    """

    def __init__(self, strategy: Any, history: History, study: Study, steps: Steps) -> None:
        self._strategy = strategy
        self._history = history
        self._study = study
        self._steps = steps
        self._exclude = getattr(strategy, "exclude", ())
        self._idle = idle_options(history.space, self._exclude)

    def look(self, step: Step) -> None:
        """Put what is known now on the line of a step under way."""
        trace = self._strategy.learned(self._history)
        if trace:
            step.message, step.data = _said(trace[-1]), _figures(trace[-1])

    def keep(self, unit: str, total: int) -> None:
        """Write what was learned so far to the study, and tell what is newly wrong with it.

        Args:
            unit: Of the steps of the learning: "step" or "trial".
            total: How many there are to be, of trials those judged: so records count these, too.
        """
        trace = self._strategy.learned(self._history)
        if not trace:
            return
        if unit == "trial":
            trace = self._by_judged(trace)
        before: Mapping[str, str] = (self._study.get("learning") or {}).get("warnings", {})
        # What is known now is kept for good at the end only; when this is asked is chance before.
        settled = trace if trace[-1].step >= total else trace[:-1]
        seen = symptoms(
            settled, total=total, idle=self._idle, choices=self._history.space.choices,
            exclude=self._exclude,
        )  # fmt: skip
        told = {sign: advised(self._strategy, sign, text) for sign, text in seen.items()}
        warnings = {**told, **before}
        records = [asdict(known) for known in trace]
        document = {"unit": unit, "total": total, "records": records, "warnings": warnings}
        self._study.put("learning", document)
        for sign, text in warnings.items():
            if sign not in before:
                self._steps.listener(Event("note", message=text, data={"symptom": sign}))

    def _by_judged(self, trace: Sequence[Learning]) -> Sequence[Learning]:
        """Return what was known by how many trials were judged till then, not proposed."""
        judged = list(accumulate(map(was_judged, self._history), initial=0))
        return [replace(known, step=judged[known.step]) for known in trace]


def _said(now: Learning) -> str:
    parts = []
    if now.expected is not None:
        parts.append(f"{plain_name(now.quantity)} {amount(now.quantity, now.expected)}")
        if now.target is not None:
            parts[0] += f" of {amount(now.quantity, now.target)}"
    parts.append(f"entropy {100 * now.entropy:.0f} %")
    if now.reward is not None:
        parts.append(f"reward {now.reward:.3g}")
    return ", ".join(parts)


def _figures(now: Learning) -> dict[str, float]:
    figures = {
        "entropy": now.entropy,
        f"expected_{now.quantity}": now.expected,
        f"target_{now.quantity}": now.target,
        "reward": now.reward,
    }
    return {name: value for name, value in figures.items() if value is not None}
