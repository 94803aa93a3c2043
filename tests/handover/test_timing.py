"""The file that is handed over is timed beside the graph that was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.handover import timing
from assay.handover.export import HandOver, hand_over
from assay.handover.formats import Timed
from assay.hardware.device import Device
from assay.hardware.runtimes import Runner
from assay.testing import FakeDevice

LINEAR = nn.Linear(3, 2)


class Told(Device):
    """A device whose times are given, a list for each time that it is asked."""

    def __init__(self, *times_ms: list[float], batch: int = 1) -> None:
        super().__init__(batch=batch)
        object.__setattr__(self, "given", list(times_ms))

    def medians_ms(
        self, runners: Sequence[Runner], on_round: Callable[[int, int], None] | None = None
    ) -> list[float]:
        for runner in runners:
            runner()
        times_ms: list[float] = self.__dict__["given"].pop(0)
        assert len(times_ms) == len(runners)
        return times_ms


def give(tmp_path: Path, target: Device, net: nn.Module = LINEAR) -> HandOver:
    return hand_over(
        net, torch.randn(4, 3), tmp_path / "best", architecture=Architecture({"op": "a"}),
        metrics={"latency_ms": 0.1}, settings={}, target=target,
    )  # fmt: skip


def batch_of(tmp_path: Path) -> Any:
    (given,) = onnx.load(tmp_path / "best" / "model.onnx").graph.input
    dim = given.type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


def test_a_file_about_as_quick_keeps_its_open_batch_and_the_card_tells_both(tmp_path: Path) -> None:
    done = give(tmp_path, Told([0.1, 0.11]))
    assert done.onnx_timed == Timed(1, 0.11, 0.1)
    assert done.figures == {"model_onnx_ms": 0.11}
    assert "model.onnx" in done.open_batch
    card = (tmp_path / "best/card.md").read_text()
    assert "| latency of model.onnx | 0.11 ms |" in card
    assert "`model.onnx`, in turns with it at batch 1, took 0.11 ms, the graph 0.1 ms.\n" in card


@pytest.mark.parametrize("batch", [1, 2])
def test_a_slow_one_is_replaced_by_one_with_the_targets_batch(tmp_path: Path, batch: int) -> None:
    done = give(tmp_path, Told([0.1, 0.2], [0.1, 0.21, 0.12], batch=batch))
    assert done.onnx_timed == Timed(batch, 0.12, 0.1, 0.21)
    assert done.open_batch == ["model.pt2"]
    assert batch_of(tmp_path) == batch
    card = (tmp_path / "best/card.md").read_text()
    assert f"; N is fixed at {batch}.\n- `model.pt2`" in card
    assert "took 0.12 ms, the graph 0.1 ms. A file for any N took 0.21 ms; so N is fixed.\n" in card


@pytest.mark.parametrize("again_ms", [[0.1, 0.2, 0.16], [0.2, 0.2, 0.1]])
def test_one_hardly_slower_the_second_time_or_hardly_quicker_fixed_keeps_its_open_batch(
    tmp_path: Path, again_ms: list[float]
) -> None:
    done = give(tmp_path, Told([0.1, 0.2], again_ms))
    assert done.onnx_timed == Timed(1, 0.2, 0.1)
    assert isinstance(batch_of(tmp_path), str)
    assert done.files == sorted(p.name for p in (tmp_path / "best").iterdir())
    assert "model.fixed" not in done.files


def test_one_that_cannot_be_had_leaves_the_file_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = timing.write_onnx

    def written(*given: Any, open_batch: bool = True) -> Any:
        if not open_batch:
            raise RuntimeError("of the exporter")
        return write(*given)

    monkeypatch.setattr(timing, "write_onnx", written)
    done = give(tmp_path, Told([0.1, 0.2]))
    assert done.onnx_timed == Timed(1, 0.2, 0.1)
    assert done.open_batch == ["model.onnx", "model.pt2"]


class Pair(nn.Module):
    """A network for batches of two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) * 2


def test_a_network_without_an_open_batch_is_written_for_the_targets(tmp_path: Path) -> None:
    done = hand_over(
        Pair(), torch.randn(2, 3), tmp_path / "best", architecture=Architecture({"op": "a"}),
        metrics={}, settings={}, target=Told([0.1, 0.3], batch=2),
    )  # fmt: skip
    assert done.onnx_timed == Timed(2, 0.3, 0.1)
    assert batch_of(tmp_path) == 2


@pytest.mark.parametrize("target", [Device("torch"), FakeDevice(lambda module: 0.25)])
def test_where_networks_run_otherwise_it_is_not_timed(tmp_path: Path, target: Device) -> None:
    done = give(tmp_path, target)
    assert done.onnx_timed is None
    assert done.figures == {}
    assert "model.onnx" in done.open_batch
    assert "in turns with it" not in (tmp_path / "best/card.md").read_text()


def test_a_device_times_it_for_real(tmp_path: Path) -> None:
    timed = give(tmp_path, Device()).onnx_timed
    assert timed is not None
    assert timed.file_ms > 0.0
    assert timed.measured_ms > 0.0
