"""Latency of any architecture of a space from measurements of its parts, on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.stats import kendalltau
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import ExportRefused, ForeignMachine, InvalidSetting, InvalidStudy
from assay.hardware.calls import PathCalls, Unit, shapes_of
from assay.hardware.count import tensors_in
from assay.hardware.coverage import distinct, meet_all_units
from assay.hardware.device import Device
from assay.hardware.fit import Fit, fit_whole
from assay.hardware.runtimes import Runner
from assay.space.space import Space

__all__ = ["LatencyTable", "Validation", "runner_of"]

_FITTED = 16
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """How far a table's predictions are from whole networks that it never saw.

    Attributes:
        rmse_ms: Root of the mean squared error.
        tau: Kendall's tau between predicted and measured; NaN where one of them is all the same.
        within_10: Share of networks within 10 % of the measurement.
        pairs: (predicted ms, measured ms, architecture as JSON, MACs of one sample) of each
            network.
    """

    rmse_ms: float
    tau: float
    within_10: float
    pairs: tuple[tuple[float, float, str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, each architecture as an object, NaN as None."""
        pairs = [[p, m, json.loads(text), macs] for p, m, text, macs in self.pairs]
        tau = self.tau if math.isfinite(self.tau) else None
        return {**asdict(self), "tau": tau, "pairs": pairs}


_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _SavedFit(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scale: _Finite
    unit_ms: _Finite
    weight_byte_ms: _Finite
    network_ms: _Finite


class _Saved(BaseModel):
    """A table as JSON."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[2]
    space: str
    device: str
    shapes: str
    units: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    fit: _SavedFit
    fitted: list[str]


class LatencyTable:
    """Latency of each distinct layer and shape of a space, and what lies between them.

    An architecture's latency is that of the whole, `network_ms`, and for each of its units

        scale * (its own milliseconds) + unit_ms + weight_byte_ms * (bytes of its weights).

    A unit is measured by itself, so it pays the runtime's price of a call, which a network pays
    once: `unit_ms` takes it back. And run over and over it finds its weights in the nearest cache,
    where a network's do not fit. The four numbers are fitted to a few whole networks, starting
    from what an empty network costs here (see `fit_whole`).

    Source: the idea of a table is that of Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332,
    appendix B; differs: it is measured here and now, through the runtime that will serve.

    Args:
        space: The space.
        device: Where networks will run.
        example: Inputs at the device's batch: a tensor, or a tuple or dict of tensors.
        units: Key of a unit -> milliseconds.
        fit: What lies between units.
        fitted: The architectures that the fit saw.
        calls: Units by architecture; made anew where None.
    """

    def __init__(
        self,
        space: Space,
        device: Device,
        *,
        example: Any,
        units: Mapping[str, float],
        fit: Fit,
        fitted: Sequence[Architecture] = (),
        calls: PathCalls | None = None,
    ) -> None:
        self.space = space
        self.device = device
        self.example = example
        self.units = dict(units)
        self.fit = fit
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

        Units and whole networks are measured side by side, see `Device.medians_ms`. Which units
        there are is found by asking for those of many architectures, see `meet_all_units`.

        Args:
            space: The space.
            device: Where networks will run.
            example: Inputs at the device's batch: a tensor, or a tuple or dict of tensors.
            on_progress: Called with (done, total): graphs written and rounds measured.
            seed: Names the networks of the fit.
        Raises:
            ExportRefused: a unit or network that ONNX Runtime cannot be given; names it.
            InvalidSetting: the accelerator is not there.
        """
        calls = PathCalls(space, example)
        meet_all_units(space, calls, seed=seed)
        drawn = _to_fit(space, derive(seed, "fitted networks"))
        keys = list(calls.modules)
        graphs = len(keys) + len(drawn)

        def tell(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(done, total)

        # Writing the graphs and measuring them take about as long: each is half of the progress.
        with device.ready():
            runners: list[Runner] = []
            for part in (*(calls.modules[key] for key in keys), *drawn):
                runners.append(runner_of(space, device, example, part))
                tell(len(runners), 2 * graphs)
            empty = device.runner(nn.Identity(), tensors_in(example)[0])
            *times_ms, empty_ms = device.medians_ms(
                [*runners, empty],
                lambda done, rounds: tell(graphs + done * graphs // rounds, 2 * graphs),
            )
        units = dict(zip(keys, times_ms))
        asked = [calls.of(point) for point in drawn]
        features = [_features(run, units) for run in asked]
        fit = fit_whole(features, times_ms[len(keys) :], empty_ms)
        return cls(space, device, example=example, units=units, fit=fit, fitted=drawn, calls=calls)

    def predict(self, architecture: Architecture) -> float:
        """Return the predicted milliseconds of an architecture.

        Raises:
            InvalidArchitecture: it is no point of the space.
            InvalidSetting: one of its units was never measured; names it.
        """
        return self.of_units(self.calls.of(architecture))

    def of_units(self, units: Sequence[Unit]) -> float:
        """Return the predicted milliseconds of a network of some units.

        Raises:
            InvalidSetting: one of them was never measured; names it.
        """
        try:
            added = sum(map(self._added_ms, units))
        except KeyError:
            missing = next(u for u in units if u.key not in self.units)
            raise InvalidSetting(
                f"the latency table has no measurement of {missing.path!r} as {missing.key}; "
                "build the table anew"
            ) from None
        return self.fit.network_ms + added

    def _added_ms(self, unit: Unit) -> float:
        fit = self.fit
        own = fit.scale * self.units[unit.key] + fit.unit_ms
        return own + fit.weight_byte_ms * unit.counts.weight_bytes

    def missing(self, architecture: Architecture) -> tuple[str, ...]:
        """Return the keys of an architecture's units that were never measured; () is the rule.

        Raises:
            InvalidArchitecture: it is no point of the space.
        """
        keys = dict.fromkeys(unit.key for unit in self.calls.of(architecture))
        return tuple(key for key in keys if key not in self.units)

    def blocks(self, architecture: Architecture) -> list[dict[str, Any]]:
        """Return an architecture's units in order: path, layers, output shape, MACs, latency.

        With `fit.network_ms` the latencies add up to the prediction. MACs are of one sample.
        """
        return [
            {
                "label": unit.path,
                "name": unit.key.partition("(")[0],
                "detail": unit.key.rpartition(" on ")[0][:300],
                "shape": list(unit.shape),
                "macs": unit.counts.macs / self.device.batch,
                "latency_ms": self._added_ms(unit),
            }
            for unit in self.calls.of(architecture)
        ]

    def layers_ms(self, architecture: Architecture) -> dict[str, float]:
        """Return the predicted milliseconds of an architecture by what computes them.

        Returns:
            Layers, as in `blocks`, with their input's shape -> milliseconds, added up over all
            places where they stand.
        """
        found: dict[str, float] = {}
        for unit in self.calls.of(architecture):
            found[unit.key] = found.get(unit.key, 0.0) + self._added_ms(unit)
        return found

    def validate(self, n: int, *, seed: int = 0) -> Validation:
        """Measure n whole networks that the fit never saw, and compare.

        Args:
            n: How many, drawn uniformly over architectures; fewer where the space has no more.
            seed: Names them.
        Raises:
            InvalidSetting: there is none that the fit has not seen.
        """
        rng = derive(seed, "validation networks")
        drawn = distinct(self.space, n, rng, exclude=set(self.fitted))
        if not drawn:
            raise InvalidSetting(
                f"validate({n}) has no network: the table was fitted to all {self.space.size} of "
                "the space; leave the validation out"
            )
        with self.device.ready():
            runners = [runner_of(self.space, self.device, self.example, a) for a in drawn]
            measured = self.device.medians_ms(runners)
        predicted = [self.predict(a) for a in drawn]
        errors = np.asarray(predicted) - np.asarray(measured)
        relative = np.abs(errors) / np.asarray(measured)
        tau = kendalltau(predicted, measured).statistic if len(drawn) > 1 else math.nan
        macs = [self.calls.counts(a).macs / self.device.batch for a in drawn]
        return Validation(
            float(np.sqrt((errors**2).mean())),
            float(tau),
            float((relative <= 0.1).mean()),
            tuple(zip(predicted, measured, (a.to_json() for a in drawn), macs)),
        )

    def save(self, path: str | Path) -> None:
        """Write the table as JSON with the machine's identity, whole or not at all."""
        saved = _Saved(
            version=2, space=self.space.fingerprint, device=self.device.fingerprint,
            shapes=_shapes(self.example), units=self.units, fit=_SavedFit(**asdict(self.fit)),
            fitted=[a.to_json() for a in self.fitted],
        )  # fmt: skip
        path = Path(path)
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
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            at = ".".join(map(str, first["loc"])) or "the file"
            raise InvalidStudy(
                f"{path} is no latency table ({at}: {first['msg']}); measure a new one"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidStudy(f"{path} cannot be read ({error}); measure a new table") from None
        if saved.space != space.fingerprint or saved.shapes != _shapes(example):
            raise InvalidSetting(f"{path} is of another space or input shape; measure a new table")
        if saved.device != device.fingerprint and not allow_foreign:
            raise ForeignMachine(
                f"{path} was measured on {saved.device}, and this is {device.fingerprint}; leave "
                "the table out of the search to measure one here, or read it all the same with "
                "LatencyTable.load(..., allow_foreign=True)"
            )
        fit = Fit(**saved.fit.model_dump())
        fitted = [Architecture.from_json(text) for text in saved.fitted]
        return cls(space, device, example=example, units=saved.units, fit=fit, fitted=fitted)


def _to_fit(space: Space, rng: np.random.Generator) -> list[Architecture]:
    """Draw networks of all sizes: half of them uniformly, half with shallow ones as often as deep.

    A fit to either half alone is off by a percent or two on the other.
    """
    usual = distinct(space, _FITTED // 2, rng)
    return usual + distinct(space, _FITTED // 2, rng, over="decisions", exclude=set(usual))


def _features(units: Sequence[Unit], times_ms: Mapping[str, float]) -> tuple[float, ...]:
    own = sum(times_ms[u.key] for u in units)
    return own, float(len(units)), float(sum(u.counts.weight_bytes for u in units)), 1.0


def runner_of(space: Space, device: Device, example: Any, part: Any) -> Runner:
    """Return what runs an architecture, or a unit, once on a device.

    Args:
        space: The space.
        device: Where it will run.
        example: Inputs of a whole network at the device's batch.
        part: An architecture, or a unit as its module and inputs.
    Raises:
        ExportRefused: ONNX Runtime cannot be given it.
    """
    try:
        if isinstance(part, Architecture):
            return device.runner(space.build(part), example)
        return device.runner(*part)
    except ExportRefused as error:
        raise ExportRefused(
            f"{error}; measure in torch instead: target=Device('torch'), or --set "
            "target.runtime=torch"
        ) from error


def _shapes(example: Any) -> str:
    return repr(shapes_of(example))
