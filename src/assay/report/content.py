"""What a report says, read from a study into plain values; nothing here draws or writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay.architecture import Architecture
from assay.contracts import STEPS, Trial
from assay.cost import Cost
from assay.report.blocks import describe_layers
from assay.report.pairs import Network, Pair, equal_macs

__all__ = ["Content", "Record", "read_content"]

_HASHED = ("space", "task")  # of these the identity holds fingerprints


class Record(Protocol):
    """What the report reads of a `Study`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the search was asked for."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the study is of: fingerprints of space, task and settings."""
        ...

    def trials(self) -> Sequence[Trial]:
        """All trials, by number."""
        ...

    def measurements(self, quantity: str | None = None, source: str | None = None) -> Iterable[Any]:
        """Rows with architecture, trial, quantity, value, source and detail."""
        ...

    def phase(self, name: str) -> Any:
        """A step: its `state`, the `counts` it was to do, and how much is `done`."""
        ...

    def ledger(self) -> Mapping[str, Cost]:
        """Cost by phase."""
        ...

    def finalists(self) -> Iterable[Any]:
        """Rows with trial (None where trained for comparison), seed, state and metrics."""
        ...

    def failures(self) -> Iterable[Any]:
        """Rows of what failed, with the traceback."""
        ...

    def sessions(self) -> Iterable[Any]:
        """Rows of the processes that worked on the study."""
        ...

    def get(self, key: str) -> Any:
        """A document by its key, or None."""
        ...


@dataclass(frozen=True)
class Content:
    """All that a report shows.

    Attributes:
        settings: How the search was asked for, what its limits came to and how much each step
            was to do.
        fingerprints: Of space and task.
        versions: Package -> version, and the machine.
        handover: What files were handed back and how exactly they repeat the network, or None.
        space: `size` and `choices`; empty when unknown.
        scored: Trials with a score, by number; of halving an architecture has one a rung.
        infeasible: Trials over a limit, never scored.
        failed: Trials that failed.
        quantity: What the front sets the score against.
        limits: The most that was allowed of each quantity that has a limit.
        by_table: Whether `quantity` is what the latency table predicts for each trial.
        winner: The document of the winner, or None.
        comparison: Winner, largest, smallest and random; empty when not made yet.
        validation: How well the latency table predicts, or None.
        networks: Whole networks whose latency was measured.
        pairs: Pairs of them of equal MACs whose latencies differ most.
        ledger: Cost by step, in the order of the steps, without what was lost.
        lost_s: Seconds lost to processes that were killed.
        learning: What a strategy that learns knew on its way, or None.
        fidelity: How scores compare with trained networks, or None when that was not asked.
        saving: What finding the winner cost beside training each, or None.
        finalists: Rows, as mappings; without what was trained for comparison.
        failures: Rows, as mappings.
        notes: What was told of the run as a whole, in sentences.
        sessions: Rows, as mappings.
        under_way: The step it has come to, and how far; "" where none is begun or all are done.
    """

    settings: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    versions: Mapping[str, Any]
    handover: Mapping[str, Any] | None
    space: Mapping[str, Any]
    scored: Sequence[Trial]
    infeasible: Sequence[Trial]
    failed: Sequence[Trial]
    quantity: str
    limits: Mapping[str, float]
    by_table: bool
    winner: Mapping[str, Any] | None
    comparison: Sequence[Mapping[str, Any]]
    validation: Mapping[str, Any] | None
    networks: Sequence[Network]
    pairs: Sequence[Pair]
    ledger: Mapping[str, Cost]
    lost_s: float
    learning: Mapping[str, Any] | None
    fidelity: Mapping[str, Any] | None
    saving: Mapping[str, Any] | None
    finalists: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    sessions: Sequence[Mapping[str, Any]]
    under_way: str

    @property
    def limit(self) -> float | None:
        """The most of `quantity` that was allowed, or None."""
        return self.limits.get(self.quantity)

    @property
    def compared(self) -> Sequence[Trial]:
        """The scored trials that were trained longest, without halving all of them.

        Scores of different lengths of training do not compare.
        """
        longest = max((trial.fidelity for trial in self.scored), default=1.0)
        return [trial for trial in self.scored if trial.fidelity == longest]

    @property
    def spent_s(self) -> float:
        """Seconds booked to all steps, what was lost included."""
        return sum(cost.wall_s for cost in self.ledger.values()) + self.lost_s


def read_content(study: Record) -> Content:
    """Read everything a report shows; what the study does not hold yet is None or empty."""
    trials = study.trials()
    limits = study.get("limits") or {}
    quantity = _quantity(trials, limits)
    validation = study.get("validation")
    networks = _networks(study, trials, validation)
    ledger = dict(study.ledger())
    lost = ledger.pop("lost", None)
    ordered = [phase for phase in STEPS if phase in ledger]
    ordered += [phase for phase in ledger if phase not in STEPS]
    return Content(
        settings=_settings(study, limits),
        fingerprints={name: study.identity[name] for name in _HASHED if name in study.identity},
        versions=_versions(study),
        handover=study.get("handover"),
        space=study.get("space") or {},
        scored=[trial for trial in trials if trial.state == "scored"],
        infeasible=[trial for trial in trials if trial.state == "infeasible"],
        failed=[trial for trial in trials if trial.state == "failed"],
        quantity=quantity,
        limits=limits,
        by_table=quantity == "latency_ms",  # that of a trial is never measured
        winner=study.get("winner"),
        comparison=study.get("comparison") or [],
        validation=validation,
        networks=networks,
        pairs=equal_macs(networks),
        ledger={STEPS.get(phase, phase): ledger[phase] for phase in ordered},
        lost_s=lost.wall_s if lost is not None else 0.0,
        learning=study.get("learning"),
        fidelity=study.get("fidelity"),
        saving=study.get("saving"),
        finalists=_finalists(study),
        failures=[_row(row) for row in study.failures()],
        notes=study.get("notes") or [],
        sessions=[_row(row) for row in study.sessions()],
        under_way=_under_way(study),
    )


def _settings(study: Record, limits: Mapping[str, float]) -> dict[str, Any]:
    """Join how a search was asked for and what that came to."""
    asked = {name: value for name, value in study.identity.items() if name not in _HASHED}
    settings = {**asked, **study.settings}
    if isinstance(settings.get("target"), Mapping):  # the machine stands among the versions
        settings["target"] = {k: v for k, v in settings["target"].items() if k != "machine"}
    if limits:
        settings["limits"] = {
            name: value if said in (None, value) else f"{said}: {value:.6g}"
            for name, value in limits.items()
            for said in [(settings.get("limits") or {}).get(name)]
        }
    counts = {phase: dict(study.phase(phase).counts) for phase in STEPS}
    if any(counts.values()):
        settings["counts"] = {phase: count for phase, count in counts.items() if count}
    return settings


def _versions(study: Record) -> dict[str, Any]:
    target = study.identity.get("target") or study.settings.get("target") or {}
    machine = {"machine": target["machine"]} if target.get("machine") else {}
    return {**(study.get("versions") or {}), **machine}


def _under_way(study: Record) -> str:
    """Name the last step that is begun and not done; how far is known of the training."""
    begun = [study.phase(name) for name in STEPS]
    last = next((phase for phase in reversed(begun) if phase.state == "running"), None)
    if last is None:
        return ""
    steps = last.counts.get("steps") if last.name == "train" else None
    return STEPS[last.name] + (f", {last.done:,} of {steps:,} steps" if steps else "")


def _quantity(trials: Sequence[Trial], limits: Mapping[str, Any]) -> str:
    """Choose what the score is set against: latency, else what is limited, else MACs."""
    known = {name for trial in trials[:1000] for name in trial.measured}
    wanted = ["latency_ms", *limits, "macs", *sorted(known)]
    return next((name for name in wanted if name in known), "latency_ms")


def _networks(
    study: Record, trials: Sequence[Trial], validation: Mapping[str, Any] | None
) -> list[Network]:
    """Collect the networks measured whole, each architecture once: the table's, the finalists'."""
    found: dict[Architecture, Network] = {}
    for _, measured, architecture, macs, *parts in (validation or {}).get("pairs", []):
        point, layers_ms = Architecture(architecture), parts[0] if parts else {}
        found[point] = Network(point, macs, measured, _by_layers(layers_ms))
    macs_of = {trial.architecture: trial.measured.get("macs") for trial in trials}
    for row in map(_row, study.measurements(quantity="latency_ms", source="measured")):
        if row["architecture"] is not None:
            point = Architecture.from_json(row["architecture"])
            told = _json(row["detail"])
            macs = told.get("macs", macs_of.get(point))
            if macs is not None:
                layers_ms = _by_layers(told.get("parts_ms", {}))
                found.setdefault(point, Network(point, macs, row["value"], layers_ms))
    return list(found.values())


def _json(detail: Any) -> Mapping[str, Any]:
    return json.loads(detail) if isinstance(detail, str) else detail or {}


def _by_layers(parts_ms: Mapping[str, float]) -> dict[str, float]:
    """Add up what layers cost at all the shapes that they see, and say them in short."""
    found: dict[str, float] = {}
    for key, cost_ms in parts_ms.items():
        layers = describe_layers(key.rpartition(" on ")[0] or key)
        found[layers] = found.get(layers, 0.0) + cost_ms
    return found


def _finalists(study: Record) -> list[Mapping[str, Any]]:
    """Return the finalists, the winner first, without what was trained for comparison."""
    won = (study.get("winner") or {}).get("trial")
    rows = [row for row in map(_row, study.finalists()) if row["trial"] is not None]
    return sorted(rows, key=lambda row: (row["trial"] != won, row["trial"], row["seed"]))


def _row(row: Any) -> Mapping[str, Any]:
    return row if isinstance(row, Mapping) else row._asdict()
