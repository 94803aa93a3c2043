"""Latency of any architecture of a space from measurements of its parts, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.optimize import nnls
from scipy.stats import kendalltau

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import ForeignMachine, InvalidSetting, InvalidStudy
from assay.hardware.calls import PathCalls, Unit, shapes_of
from assay.hardware.device import Device
from assay.hardware.runtimes import Runner
from assay.space.space import Space

__all__ = ["LatencyTable", "Validation"]

_FITTED = 12
_ROUNDS = 7
_RUNS = 25
_DRY = 40
_MOST_SWEEPS = 4000
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """How far a table's predictions are from whole networks that it never saw.

    Attributes:
        rmse_ms: Root of the mean squared error.
        tau: Kendall's tau between predicted and measured.
        within_10: Share of networks within 10 % of the measurement.
        pairs: (predicted ms, measured ms, architecture as JSON, MACs) of each network.
    """

    rmse_ms: float
    tau: float
    within_10: float
    pairs: tuple[tuple[float, float, str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, each architecture as an object."""
        pairs = [[p, m, json.loads(text), macs] for p, m, text, macs in self.pairs]
        return {**asdict(self), "pairs": pairs}


class _Saved(BaseModel):
    """A table as JSON."""

    model_config = ConfigDict(extra="forbid")

    version: int
    space: str
    device: str
    shapes: str
    units: dict[str, float]
    fit: list[float]
    fitted: list[str]


class LatencyTable:
    """Latency of each distinct layer and shape of a space, and what lies between them.

    An architecture's latency is `scale * sum of its units + between * number of units + fixed`.
    The three numbers are fitted to a few whole networks (relative least squares): a unit measured
    by itself pays the runtime's fixed price of a call, which a network pays once.

    Source: the idea of a table is that of Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332,
    appendix B; differs: it is measured here and now, through the runtime that will serve.

    Args:
        space: The space.
        device: Where networks will run.
        example: Inputs at the device's batch.
        units: Key of a unit -> milliseconds.
        fit: Scale, between, fixed.
        fitted: JSON of the architectures that the fit saw.
        calls: Units by architecture; made anew where None.
    """

    def __init__(
        self,
        space: Space,
        device: Device,
        *,
        example: Any,
        units: Mapping[str, float],
        fit: Sequence[float],
        fitted: Sequence[str] = (),
        calls: PathCalls | None = None,
    ) -> None:
        self.space = space
        self.device = device
        self.example = example
        self.units = dict(units)
        self.fit = tuple(fit)
        self.fitted = tuple(fitted)
        self.calls = calls if calls is not None else PathCalls(space, example)

    @classmethod
    def build(
        cls,
        space: Space,
        device: Device,
        *,
        example: Any,
        on_progress: Progress | None = None,
        seed: int = 0,
    ) -> LatencyTable:
        """Measure every distinct unit of the space once, and fit what lies between them.

        Every unit is run in several rounds over all units, so that a slow moment of the machine
        falls on one round of each and the median passes it over.

        Args:
            space: The space.
            device: Where networks will run.
            example: Inputs at the device's batch: a tensor, or a tuple or dict of tensors.
            on_progress: Called with (done, total).
            seed: Names the networks of the fit.
        """
        calls = PathCalls(space, example)
        _find_units(space, calls, seed)
        keys = list(calls.modules)
        drawn = _distinct(space, seed, min(_FITTED, space.size // 2), exclude=())
        total = len(keys) + len(drawn)
        tell = on_progress or _ignore
        with device.ready():
            runners: list[Runner] = []
            for i, key in enumerate(keys):
                runners.append(device.runner(*calls.modules[key]))
                tell(i, total)
            wholes: list[Runner] = []
            for i, point in enumerate(drawn):
                wholes.append(device.runner(space.build(point), example))
                tell(len(keys) + i, total)
            medians = _rounds(device, [*runners, *wholes])
        tell(total, total)
        units = dict(zip(keys, medians))
        table = cls(
            space, device, example=example, units=units, fit=(1.0, 0.0, 0.0),
            fitted=[a.to_json() for a in drawn], calls=calls,
        )  # fmt: skip
        table.fit = _fitted([table._features(calls.of(a)) for a in drawn], medians[len(keys) :])
        return table

    def predict(self, architecture: Architecture) -> float:
        """Return the predicted milliseconds of an architecture.

        Raises:
            InvalidSetting: one of its units was never measured; names it.
        """
        return self.of_units(self.calls.of(architecture))

    def of_units(self, units: Sequence[Unit]) -> float:
        """Return the predicted milliseconds of some units together; see `predict`."""
        scale, between, fixed = self.fit
        total, count, _ = self._features(units)
        return float(scale * total + between * count + fixed)

    def _features(self, units: Sequence[Unit]) -> tuple[float, float, float]:
        try:
            return sum(self.units[u.key] for u in units), float(len(units)), 1.0
        except KeyError:
            missing = next(u for u in units if u.key not in self.units)
            raise InvalidSetting(
                f"{missing.path} was never measured with {missing.key}; build the table anew"
            ) from None

    def blocks(self, architecture: Architecture) -> list[dict[str, Any]]:
        """Return an architecture's units in order: path, layers, output shape, MACs, latency."""
        return [
            {
                "label": unit.path,
                "name": unit.key.partition("(")[0],
                "detail": unit.key.rpartition(" on ")[0][:300],
                "shape": list(unit.shape),
                "macs": unit.counts.macs,
                "latency_ms": self.units[unit.key],
            }
            for unit in self.calls.of(architecture)
        ]

    def validate(self, n: int, *, seed: int = 0) -> Validation | None:
        """Measure n whole networks that the fit never saw, and compare.

        Args:
            n: How many; fewer where the space has no more.
            seed: Names them.
        Returns:
            The comparison, or None where the fit saw every network of the space.
        """
        drawn = _distinct(self.space, seed + 1, n, exclude=self.fitted)
        if not drawn:
            return None
        with self.device.ready():
            runners = [self.device.runner(self.space.build(a), self.example) for a in drawn]
            measured = _rounds(self.device, runners)
        predicted = [self.predict(a) for a in drawn]
        errors = np.asarray(predicted) - np.asarray(measured)
        relative = np.abs(errors) / np.asarray(measured)
        tau = kendalltau(predicted, measured).statistic if len(drawn) > 1 else 1.0
        macs = [float(self.calls.counts(a).macs) for a in drawn]
        return Validation(
            float(np.sqrt((errors**2).mean())),
            float(tau),
            float((relative <= 0.1).mean()),
            tuple(zip(predicted, measured, (a.to_json() for a in drawn), macs)),
        )

    def save(self, path: Path) -> None:
        """Write the table as JSON with the machine's identity, whole or not at all."""
        saved = _Saved(
            version=1, space=self.space.fingerprint, device=self.device.fingerprint,
            shapes=_shapes(self.example), units=self.units, fit=list(self.fit),
            fitted=list(self.fitted),
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(saved.model_dump_json(indent=1))
        part.replace(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        space: Space,
        device: Device,
        *,
        example: Any,
        allow_foreign: bool = False,
    ) -> LatencyTable:
        """Read a saved table.

        Args:
            path: The file.
            space: Must be the one it was built for.
            device: Must have the settings it was measured with.
            example: Inputs at the device's batch.
            allow_foreign: Accept a table that was measured on another machine.
        Raises:
            InvalidStudy: the file is missing or no table.
            InvalidSetting: it belongs to another space or to other inputs.
            ForeignMachine: it was measured on another machine or with other settings.
        """
        try:
            saved = _Saved.model_validate_json(Path(path).read_text())
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise InvalidStudy(f"{path} is no latency table ({first}); measure a new one") from None
        if saved.space != space.fingerprint or saved.shapes != _shapes(example):
            raise InvalidSetting(f"{path} is of another space or input shape; measure a new table")
        if saved.device != device.fingerprint and not allow_foreign:
            raise ForeignMachine(
                f"{path} was measured on {saved.device}, and this is {device.fingerprint}; measure "
                "a new table here, or load it with allow_foreign=True"
            )
        return cls(
            space, device, example=example, units=saved.units, fit=saved.fit, fitted=saved.fitted
        )


def _shapes(example: Any) -> str:
    return repr(shapes_of(example))


def _find_units(space: Space, calls: PathCalls, seed: int) -> None:
    """Run architectures until no new unit turns up: sweeps of single decisions, then draws."""
    rng = derive(seed, "units")
    bases = [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(6))]
    tried = 0
    for base in bases:
        calls.of(base)
        for label, choice in space.choices.items():
            for option in choice.options if label in base else ():
                calls.of(space.complete({**base, label: option}, lambda c: c.options[-1]))
                tried += 1
        if tried > _MOST_SWEEPS:
            break
    dry = 0
    while dry < _DRY and tried < 2 * _MOST_SWEEPS:
        before = len(calls.modules)
        calls.of(space.sample(rng, over="decisions"))
        dry = dry + 1 if len(calls.modules) == before else 0
        tried += 1


def _distinct(space: Space, seed: int, n: int, exclude: Sequence[str]) -> list[Architecture]:
    """Draw distinct architectures over decisions, so that shallow and deep ones are met."""
    rng = derive(seed, "whole networks")
    found: dict[Architecture, None] = {}
    for _ in range(50 * n):
        point = space.canonical(space.sample(rng, over="decisions"))
        if point.to_json() not in exclude:
            found[point] = None
        if len(found) == n:
            break
    return list(found)


def _rounds(device: Device, runners: Sequence[Runner]) -> list[float]:
    """Return the median over rounds of each runner's median milliseconds."""
    medians = np.empty((_ROUNDS, len(runners)))
    for row in medians:
        for i, runner in enumerate(runners):
            row[i] = np.median(device.times_ms(runner, _RUNS, warmup=3))
    return [float(v) for v in np.median(medians, axis=0)]


def _fitted(features: Sequence[Sequence[float]], measured: Sequence[float]) -> tuple[float, ...]:
    """Return scale, between and fixed by least squares of relative errors.

    The scale stays within a factor of two, so that few networks cannot turn the table over.
    """
    y = np.asarray(measured)
    x = np.asarray(features) / y[:, None]
    if len(y) < len(x[0]):
        return (1.0, 0.0, 0.0)
    solution, *_ = np.linalg.lstsq(x, np.ones(len(y)), rcond=None)
    if 0.5 <= solution[0] <= 2.0:
        return tuple(float(v) for v in solution)
    rest, _ = nnls(x[:, 1:], np.ones(len(y)) - np.minimum(x[:, 0], 1.0))
    return (1.0, *(float(v) for v in rest))


def _ignore(done: int, total: int) -> None:
    """Nobody listens."""
