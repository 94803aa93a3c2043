from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import ExportRefused
from assay.handover import export, formats
from assay.handover.export import HandOver, hand_over
from assay.space.space import Space
from assay.zoo.mobile import Stage, mobile
from tests.space.spaces import randomise_norms

POINT = Architecture({"op": "a"})


def give(net: nn.Module, inputs: Any, out: Path, **more: Any) -> HandOver:
    return hand_over(net, inputs, out, architecture=POINT, metrics={}, settings={}, **more)


class Winner:
    """A network of the ready space, its inputs and its folder."""

    def __init__(self, folder: Path) -> None:
        stages = (Stage((4, 6), (1, 2)), Stage((6, 8), (1, 2), stride=2))
        space: Space = mobile(stages=stages, stem=4, head=8)
        randomise_norms(space.model)
        self.architecture = space.sample(np.random.default_rng(0))
        self.net = space.build(self.architecture)
        self.inputs = torch.randn(4, 1, 8, 8)
        self.out = folder / "best"
        self.before = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.done = hand_over(
            self.net, self.inputs, self.out, architecture=self.architecture,
            metrics={"test_accuracy": 0.975, "latency_ms": 0.412},
            settings={"seed": 0, "limits": {"latency_ms": 0.5}}, source=True,
        )  # fmt: skip

    def expected(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net.eval()(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Winner:
    torch.manual_seed(0)
    return Winner(tmp_path_factory.mktemp("run"))


def test_all_files_are_there_and_nothing_else(winner: Winner) -> None:
    names = ["architecture.json", "card.md", "model.onnx", "model.pt2", "model.py",
             "weights.safetensors"]  # fmt: skip
    assert winner.done.files == names == sorted(p.name for p in winner.out.iterdir())
    assert [p.name for p in winner.out.parent.iterdir()] == ["best"]
    assert winner.done.refused == {}
    assert json.loads(json.dumps(winner.done.to_dict()))["files"] == names


def test_the_module_is_left_as_it_was(winner: Winner) -> None:
    after = winner.net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in winner.before.items())


def test_the_differences_are_those_of_the_files(winner: Winner) -> None:
    assert winner.done.pt2_max_difference == 0.0
    assert winner.done.source_max_difference == 0.0
    assert winner.done.onnx_max_difference is not None
    scale = float(winner.expected(winner.inputs).abs().max())
    assert 0.0 < winner.done.onnx_max_difference <= 1e-5 * scale


@pytest.mark.parametrize("n", [1, 4, 7])
def test_onnx_takes_any_batch(winner: Winner, n: int) -> None:
    session = onnxruntime.InferenceSession(str(winner.out / "model.onnx"))
    x = torch.randn(n, 1, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = winner.expected(x)
    assert np.abs(found - expected.numpy()).max() <= 1e-5 * float(expected.abs().max())
    assert "model.onnx" in winner.done.open_batch


def test_weights_and_architecture(winner: Winner) -> None:
    state = load_file(winner.out / "weights.safetensors")
    assert {k: v.tolist() for k, v in state.items()} == {
        k: v.tolist() for k, v in winner.before.items()
    }
    text = (winner.out / "architecture.json").read_text()
    assert Architecture.from_json(text) == winner.architecture


def test_no_file_bears_a_trace_of_assay_or_of_this_machine(winner: Winner) -> None:
    here = str(Path(torch.__file__).parent).encode()
    for path in winner.out.iterdir():
        if path.name != "card.md":  # which says how it was found
            assert b"assay" not in path.read_bytes().lower(), path.name
        assert here not in path.read_bytes(), path.name


ALONE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("assay", "safetensors"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
try:
    import assay
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("assay was imported")

import torch
from model import load, read_safetensors
x = read_safetensors("../inputs.safetensors")["x"]
expected = read_safetensors("../inputs.safetensors")["y"]
for net in (load(), torch.export.load("model.pt2").module()):
    with torch.no_grad():
        print(float((net(x) - expected).abs().max()))
"""


def test_source_and_pt2_need_torch_alone(winner: Winner) -> None:
    from safetensors.torch import save_file

    x = torch.randn(3, 1, 8, 8)
    save_file({"x": x, "y": winner.expected(x)}, winner.out.parent / "inputs.safetensors")
    done = subprocess.run(
        [sys.executable, "-B", "-c", ALONE], cwd=winner.out, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [float(line) <= 1e-6 for line in done.stdout.split()] == [True, True]
    (winner.out.parent / "inputs.safetensors").unlink()


@pytest.mark.slow
def test_the_source_runs_as_a_script(winner: Winner) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "model.py"], cwd=winner.out, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    params = sum(p.numel() for p in winner.net.parameters())
    assert done.stdout.splitlines()[-1] == f"{params:,} parameters"


# --- what is refused ------------------------------------------------------------------------------


class Branch(nn.Module):
    """A forward that depends on values, which no exporter writes down."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)  # type: ignore[no-any-return]


def test_what_the_exporter_refuses_costs_its_own_file_only(tmp_path: Path) -> None:
    net = Branch().train()
    done = give(net, torch.randn(4, 3), tmp_path / "best", source=True)
    assert done.files == ["architecture.json", "card.md", "weights.safetensors"]
    assert done.onnx_max_difference is None
    assert done.pt2_max_difference is None
    assert "data-dependent" in done.refused["model.onnx"]
    assert "data-dependent" in done.refused["model.pt2"]
    assert "no source for the network, a Branch" in done.refused["model.py"]
    card = (tmp_path / "best/card.md").read_text()
    for name, reason in done.refused.items():
        assert f"- There is no `{name}`: {reason}" in card
    assert net.training


class Extra(nn.Module):
    """Keeps extra state, of which one part is a tensor."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.inner, self._kept = nn.Linear(4, 3), kept

    def get_extra_state(self) -> Any:
        return self._kept

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


@pytest.mark.parametrize("kept", [7, {"calls": 1}, torch.ones(2)])
def test_extra_state_is_written_where_it_is_a_tensor(kept: Any, tmp_path: Path) -> None:
    net = nn.Sequential(Extra(kept))
    done = give(net, torch.randn(4, 4), tmp_path / "best")
    weights = load_file(tmp_path / "best" / "weights.safetensors")
    left = [] if isinstance(kept, Tensor) else ["0._extra_state"]
    assert done.extra_state == left == done.to_dict()["extra_state"]
    assert sorted(weights) == sorted(set(net.state_dict()) - set(left))


class Fixed(nn.Module):
    """A network for batches of four."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(4, 3) * 2


def test_a_batch_that_the_network_fixes_stays_fixed(tmp_path: Path) -> None:
    done = give(Fixed(), torch.randn(4, 3), tmp_path / "best")
    assert done.open_batch == []
    assert done.onnx_max_difference == done.pt2_max_difference == 0.0
    assert "at most 0; N is fixed at 4." in (tmp_path / "best/card.md").read_text()


def test_what_the_runtime_refuses_with_an_open_batch_is_written_with_a_fixed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_onnx(module: nn.Module, inputs: Any, *, dynamic_batch: bool) -> Any:
        if dynamic_batch:
            raise RuntimeError("of the runtime, which has errors of its own")
        return export_as_ever(module, inputs, dynamic_batch=False)

    export_as_ever = formats.export_onnx
    monkeypatch.setattr(formats, "export_onnx", export_onnx)
    written = formats.write_onnx(nn.Linear(3, 2).eval(), torch.randn(4, 3), tmp_path / "m.onnx")
    assert not written.open_batch
    assert written.max_difference <= 1e-6
    assert (tmp_path / "m.onnx").is_file()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(a) - b, b * 2


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs(tmp_path: Path, by_name: bool) -> None:
    a, b = torch.randn(4, 3), torch.randn(4, 2)
    done = give(Two(), {"b": b, "a": a} if by_name else (a, b), tmp_path / "best")
    assert done.refused == {}
    assert done.open_batch == ["model.onnx", "model.pt2"]
    assert done.onnx_max_difference is not None
    assert done.onnx_max_difference <= 1e-6
    card = (tmp_path / "best/card.md").read_text()
    assert ("`[N, 2]` and `[N, 3]`" if by_name else "`[N, 3]` and `[N, 2]`") in card


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = lambda path: nn.Linear(3, 2)  # noqa: E731
    monkeypatch.setattr(export, "load_source", wrong)
    monkeypatch.setattr(export, "write_onnx", _unused)
    monkeypatch.setattr(export, "write_pt2", _unused)
    done = give(nn.Linear(3, 2), torch.randn(4, 3), tmp_path / "best", source=True)
    assert done.files == ["architecture.json", "card.md", "weights.safetensors"]
    assert done.refused["model.onnx"] == "MemoryError: no reason given"
    assert done.refused["model.py"].startswith("ExportRefused: its output differs from torch's by")


def _unused(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([-1e9, 1.0, 2.0], [-1e9, 1.0, 2.1]),  # a class that is masked hides no other
        ([-math.inf, 1.0], [0.0, 1.0]),
        ([0.0, math.inf], [0.0, -math.inf]),
        ([0.0, 1.0], [0.0, math.nan]),
        ([math.nan, 1.0], [math.nan, 1.0]),
        ([100.0, 120.0, -90.0, 200.0], [100.0, 120.0, -90.0, 200.3]),
        ([True, False], [True, True]),
    ],
)
def test_each_element_is_held_by_itself(expected: list[Any], found: list[Any]) -> None:
    with pytest.raises(ExportRefused, match="differs from torch's by"):
        formats.largest_difference([torch.tensor(expected)], [torch.tensor(found)])


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([-1e9, 1.0, 2.0], [-1e9 + 64, 1.0, 2.0], 64.0),
        ([-math.inf, 1.0, math.inf], [-math.inf, 1.0 + 2**-11, math.inf], 2**-11),
        ([1e6, 2e6, -3e6, 0.0], [1e6, 2e6, -3e6, 0.5], 0.5),  # rounding of what it is a sum of
        ([True, False], [True, False], 0.0),
        ([], [], 0.0),
    ],
)
def test_what_is_rounded_is_accepted(
    expected: list[Any], found: list[Any], difference: float
) -> None:
    tensors = [torch.tensor(values) for values in (expected, found)]
    told = formats.largest_difference(*([t.double()] for t in tensors))
    assert told == pytest.approx(difference, rel=1e-6)


def test_outputs_in_which_nothing_can_be_compared_are_refused() -> None:
    with pytest.raises(ExportRefused, match="holds no tensor"):
        formats.largest_difference([], [])


class Masked(nn.Module):
    """Says of which classes it knows nothing, and writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("shift", torch.tensor([0.5, -1.0, 2.0]))
        self.register_buffer("open", torch.tensor([True, False, True, True]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x -= self.shift
        scores = self.layer(x).masked_fill(~self.open, -math.inf)
        return scores, scores > 0


def test_infinite_and_boolean_outputs_of_a_forward_that_writes_into_its_input(
    tmp_path: Path,
) -> None:
    inputs = torch.randn(4, 3)
    before = inputs.clone()
    done = give(Masked(), inputs, tmp_path / "best")
    assert done.refused == {}
    assert torch.equal(inputs, before)
    assert done.onnx_max_difference is not None
    assert done.onnx_max_difference <= 1e-6


def test_how_many_features_are_normalised_is_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write_onnx", _unused)
    monkeypatch.setattr(export, "write_pt2", _unused)
    scales = {"mean": [i + 0.1 for i in range(100)], "deviation": [2.0] * 100}
    done = hand_over(
        nn.Linear(100, 2), torch.randn(4, 100), tmp_path / "best", architecture=POINT, metrics={},
        settings={"task": {"name": "mine", "normalised": scales}},
    )  # fmt: skip
    assert "normalise.json" in done.files
    assert json.loads((tmp_path / "best/normalise.json").read_text()) == scales
    card = (tmp_path / "best/card.md").read_text()
    assert "by `mean` and `deviation` in `normalise.json`: `(x - mean) / deviation`" in card
    assert "99.1" not in card


# --- whole or not at all --------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_a_kill_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write_onnx", _unused)
    monkeypatch.setattr(export, "write_pt2", _unused)
    out = tmp_path / "deep" / "best"
    net = nn.Linear(3, 2)
    give(net, torch.randn(4, 3), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_card", kill)
        with pytest.raises(Killed):
            give(nn.Linear(3, 5), torch.randn(4, 3), out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before

    (tmp_path / "deep" / "best.old").mkdir()
    give(nn.Linear(3, 5), torch.randn(4, 3), out)
    assert load_file(out / "weights.safetensors")["weight"].shape == (5, 3)
    assert [p.name for p in out.parent.iterdir()] == ["best"]
