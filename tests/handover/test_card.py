from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.architecture import Architecture
from assay.handover.card import write_card
from assay.handover.export import HandOver, hand_over
from assay.space.space import Space
from assay.testing import TinyNet


def card(tmp_path: Path, metrics: dict[str, float], done: HandOver, **more: Any) -> list[str]:
    path = tmp_path / "card.md"
    settings = {"seed": 0, "limits": {"latency_ms": 0.5}, "space": "mobile | tiny", **more}
    point = Architecture({"stage1": 2, "stage1.0": "k3e6"})
    write_card(path, point, metrics, settings, done, torch.zeros(4, 1, 8, 8))
    return path.read_text().splitlines()


def test_figures_have_their_units(tmp_path: Path) -> None:
    figures = {
        "test_accuracy": 0.97778, "latency_ms": 0.41239, "macs": 1234567.0, "params": 2345.0,
        "model_bytes": 99999.0, "memory_bytes": 512.0, "training_s": 12.5, "valid_loss": 0.1,
        "latency_table_ms": 0.4, "model_onnx_ms": 0.25123,
    }  # fmt: skip
    lines = card(tmp_path, figures, HandOver())
    start = lines.index("|---|---:|") + 1
    assert lines[start : start + len(figures)] == [
        "| test accuracy | 97.78 % |",
        "| latency | 0.4124 ms |",
        "| multiply-accumulates | 1,234,567 |",
        "| parameters | 2,345 |",
        "| model size | 97.66 KiB |",
        "| memory | 512 bytes |",
        "| training | 12.5 s |",
        "| validation loss | 0.1 |",
        "| latency by the table | 0.4 ms |",
        "| latency of model.onnx | 0.2512 ms |",
    ]


def test_only_the_files_that_are_there_are_loaded(tmp_path: Path) -> None:
    done = HandOver(
        files=["model.pt2", "weights.safetensors"], pt2_max_difference=1.25e-7,
        open_batch=["model.pt2"], refused={"model.onnx": "too wild"},
    )  # fmt: skip
    lines = card(tmp_path, {}, done)
    start, end = lines.index("```python"), lines.index("```")
    assert lines[start + 1 : end] == [
        "import torch",
        "net = torch.export.load('model.pt2').module()  # needs torch alone",
        "",
        "from safetensors.torch import load_file",
        "state = load_file('weights.safetensors')",
        "",
        "from pathlib import Path",
        "from assay import Architecture, Space",
        "point = Architecture.from_json(Path('architecture.json').read_text())",
        "net = Space(YourModel).build(point)  # YourModel: as the search was given it",
        "net.load_state_dict(state)",
        "net.eval()",
    ]
    assert "- There is no `model.onnx`: too wild" in lines
    assert (
        "- `model.pt2` was loaded and checked: on real inputs its outputs differ from the trained "
        "network's by at most 1.25e-07."
    ) in lines
    assert "Inputs are `[N, 1, 8, 8]`, float32; N is any number unless said otherwise." in lines


def test_how_inputs_are_normalised_and_classes_named_is_said_outside_the_settings(
    tmp_path: Path,
) -> None:
    task = {
        "normalised": {"mean": [77.36520385742188, 0.5], "deviation": [95.5, 2.0]},
        "class_names": ["ant", "bee"],
    }
    text = "\n".join(card(tmp_path, {}, HandOver(), task=task)).partition("How it was found")[0]
    assert "`(x - [77.3652, 0.5]) / [95.5, 2]` of the values x that the task was given" in text
    assert "Outputs are of the classes `ant`, `bee`." in text
    task = {"normalised": {"mean": [3.25], "deviation": [0.5]}, "class_names": []}
    text = "\n".join(card(tmp_path, {}, HandOver(), task=task)).partition("How it was found")[0]
    assert "`(x - 3.25) / 0.5`" in text
    assert "classes" not in text


class CountingNet(TinyNet):
    """Has extra state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]


@pytest.mark.parametrize("model", [TinyNet, CountingNet])
def test_the_lines_for_a_model_of_ones_own_load_it(
    model: type[TinyNet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space(model)
    network = space.build(space.smallest())
    network.eval()
    hand_over(
        network, torch.rand(4, 6), tmp_path / "best", architecture=space.smallest(),
        metrics={}, settings={},
    )  # fmt: skip
    text = (tmp_path / "best" / "card.md").read_text()
    monkeypatch.chdir(tmp_path / "best")
    x = torch.rand(3, 6)
    known = {"YourModel": model, "x": x.numpy()}
    exec(text.partition("```python\n")[2].partition("```")[0], known)
    with torch.no_grad():
        assert torch.equal(known["net"](x), network(x))
        assert np.abs(known["outputs"][0] - network(x).numpy()).max() < 1e-5


def test_it_says_whose_extra_state_is_left_out(tmp_path: Path) -> None:
    said = "- Extra state that is no tensor is not in `weights.safetensors`: that of "
    done = HandOver(files=["weights.safetensors"], extra_state=["_extra_state", "a.b._extra_state"])
    lines = card(tmp_path, {}, done)
    assert f"{said}the network itself, `a.b`." in lines
    assert "net.load_state_dict(state, strict=False)" in lines
    assert said not in "\n".join(card(tmp_path, {}, HandOver()))


def test_a_ready_space_needs_no_such_lines(tmp_path: Path) -> None:
    assert "Space(" not in "\n".join(card(tmp_path, {}, HandOver(), origin={"space": "mobile"}))


def test_the_limits_tell_of_a_test_only_where_there_was_one(tmp_path: Path) -> None:
    tested = "\n".join(card(tmp_path, {"test_accuracy": 0.9, "valid_loss": 0.1}, HandOver()))
    assert "\n\n- The test figures are of one look at the test split, after" in tested
    assert "Nothing was tested" not in tested
    untested = "\n".join(card(tmp_path, {"valid_accuracy": 0.9}, HandOver()))
    assert "\n\n- Nothing was tested, since the task has no test split." in untested
    assert "| validation accuracy | 90.00 % |" in untested
    assert "test figures" not in untested
    assert untested.rpartition("say nothing of other data.\n")[2].startswith("- Latency holds")


def test_how_it_was_found(tmp_path: Path) -> None:
    lines = card(tmp_path, {}, HandOver())
    assert "| `stage1.0` | k3e6 |" in lines
    assert '| limits | `{"latency_ms": 0.5}` |' in lines
    assert "| space | `mobile \\| tiny` |" in lines
