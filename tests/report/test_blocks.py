from __future__ import annotations

import pytest

from assay.report.blocks import blocks, describe_layers, largest_share

DEPTHWISE = (
    "Conv2d(16, 96, kernel_size=(1, 1), stride=(1, 1), bias=False) > BatchNorm2d(96, eps=1e-05) > "
    "ReLU() > Conv2d(96, 96, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), groups=96)"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEPTHWISE, "conv 1×1, 16→96 › depthwise 7×7, 96, stride 2"),
        (
            f"{DEPTHWISE} > BatchNorm2d(96, eps=1",
            "conv 1×1, 16→96 › depthwise 7×7, 96, stride 2 › …",
        ),
        ("Conv1d(8, 16, kernel_size=(5,), stride=(1,), groups=4)", "conv 5, 8→16, 4 groups"),
        (
            "AdaptiveAvgPool2d(output_size=1) > Flatten(start_dim=1, end_dim=-1) > "
            "Linear(in_features=112, out_features=10, bias=True)",
            "average pool › linear 112→10",
        ),
        ("MaxPool2d(kernel_size=2, stride=2, padding=0)", "max pool 2×2"),
        ("ReLU6(inplace=True)", "ReLU6"),
        ("Mine(a=1) > Sequence()", "Mine › Sequence"),
        ("24 → 24, 3×3 depthwise", "24 → 24, 3×3 depthwise"),
        ("", ""),
    ],
)
def test_layers_are_said_in_short(text: str, said: str) -> None:
    assert describe_layers(text) == said


def test_blocks_share_what_they_take() -> None:
    rows = [
        {"label": "a", "name": "conv", "macs": 30, "latency_ms": 0.1},
        {"label": "b", "macs": 10, "latency_ms": None},
    ]
    first, second = blocks({"blocks": rows})
    assert (first["macs_share"], first["latency_ms_share"]) == (75.0, 100.0)
    assert (second["macs_share"], second["latency_ms_share"]) == (25.0, None)
    assert largest_share([first, second]) == 100.0
    assert (first["name"], first["label"]) == ("conv", "a")
    assert (second["name"], second["label"], second["detail"]) == ("b", "", "")
    assert blocks(None) == []
    assert largest_share([]) == 100.0


@pytest.mark.parametrize(
    ("latencies", "shares"),
    [
        ((-0.0003, 0.0019, 0.0019), [0.0, 50.0, 50.0]),
        ((-0.0042, 0.0001), [0.0, 100.0]),
        ((-0.0042, -0.0086), [None, None]),
        ((0.0, 0.002), [0.0, 100.0]),
    ],
)
def test_a_latency_below_nothing_takes_nothing_from_the_others(
    latencies: tuple[float, ...], shares: list[float | None]
) -> None:
    rows = [{"label": str(i), "latency_ms": ms} for i, ms in enumerate(latencies)]
    assert [block["latency_ms_share"] for block in blocks({"blocks": rows})] == shares


def test_a_chain_of_layers_goes_by_its_place_in_the_network() -> None:
    row = {"label": "stage1.0.k7e6", "name": "Conv2d", "detail": DEPTHWISE, "shape": [1, 96, 4, 4]}
    [block] = blocks({"blocks": [row]})
    assert (block["name"], block["label"], block["shape"]) == ("stage1.0.k7e6", "", "96×4×4")
    assert block["macs_share"] is None
