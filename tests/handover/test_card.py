from __future__ import annotations

from pathlib import Path

import torch

from assay.architecture import Architecture
from assay.handover.card import write_card
from assay.handover.export import HandOver


def card(tmp_path: Path, metrics: dict[str, float], done: HandOver) -> list[str]:
    path = tmp_path / "card.md"
    settings = {"seed": 0, "limits": {"latency_ms": 0.5}, "space": "mobile | tiny"}
    point = Architecture({"stage1": 2, "stage1.0": "k3e6"})
    write_card(path, point, metrics, settings, done, torch.zeros(4, 1, 8, 8))
    return path.read_text().splitlines()


def test_figures_have_their_units(tmp_path: Path) -> None:
    figures = {
        "test_accuracy": 0.97778, "latency_ms": 0.41239, "macs": 1234567.0, "params": 2345.0,
        "model_bytes": 99999.0, "memory_bytes": 512.0, "training_s": 12.5, "valid_loss": 0.1,
        "latency_table_ms": 0.4,
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
    ]


def test_only_the_files_that_are_there_are_loaded(tmp_path: Path) -> None:
    done = HandOver(
        files=["model.pt2", "weights.safetensors"], pt2_max_difference=1.25e-7,
        open_batch=["model.pt2"], refused={"model.onnx": "too wild"},
    )  # fmt: skip
    lines = card(tmp_path, {}, done)
    start, end = lines.index("```python"), lines.index("```")
    assert lines[start + 1 : end] == [
        "net = torch.export.load('model.pt2').module()  # needs torch alone",
        "state = safetensors.torch.load_file('weights.safetensors')",
    ]
    assert "- There is no `model.onnx`: too wild" in lines
    assert (
        "- `model.pt2` was loaded and checked: on real inputs its outputs differ from the trained "
        "network's by at most 1.25e-07."
    ) in lines
    assert "Inputs are `[N, 1, 8, 8]`, float32; N is any number unless said otherwise." in lines


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
