from __future__ import annotations

import pytest

from assay.report.units import amount, axis, compact, duration, keep_together, plain_name


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_ms", 0.4213, "0.421 ms"),
        ("latency_ms", 0.0458, "0.0458 ms"),
        ("latency_ms", 12.34, "12.3 ms"),
        ("latency_ms", 1234.5, "1,234 ms"),
        ("latency_ms", 0.000123, "0.000123 ms"),
        ("latency_ms", 0, "0 ms"),
        ("macs", 1_234_567, "1.23 M"),
        ("params", 999, "999"),
        ("params", 999_600, "1.00 M"),
        ("test_accuracy", 0.97778, "97.78 %"),
        ("memory_bytes", 1536, "1.50 KiB"),
        ("model_bytes", 12, "12 bytes"),
        ("cost_s", 114, "1 min 54 s"),
        ("test_loss", 0.07934, "0.0793"),
        ("energy", 2.5e-7, "2.50e-07"),
        ("trial", 20_000, "20,000"),
        ("latency_ms", None, "–"),
        ("test_loss", float("nan"), "–"),
        ("state", "done", "done"),
        ("clean", True, "True"),
    ],
)
def test_amount(name: str, value: object, text: str) -> None:
    assert amount(name, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.034, "34 ms"), (4.21, "4.2 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.7, "1 min"), (114, "1 min 54 s"), (3599.7, "1 h"), (11_520, "3 h 12 min"),
        (86_399, "1 d"), (200_000, "2 d 8 h"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "largest", "label"),
    [
        ("macs", 3.2e6, ("MACs (millions)", 1e6)),
        ("macs", 12, ("MACs", 1.0)),
        ("latency_ms", 0.4, ("latency (ms)", 1.0)),
        ("memory_bytes", 5 * 2.0**20, ("memory (MiB)", 2.0**20)),
        ("memory_bytes", 3, ("memory (bytes)", 1.0)),
        ("my_energy", 3, ("my energy", 1.0)),
    ],
)
def test_axis(name: str, largest: float, label: tuple[str, float]) -> None:
    assert axis(name, largest) == label


def test_a_space_of_any_size_is_written_exactly_enough() -> None:
    assert compact(2 * 10**18) == "2.00 × 10^18"
    assert compact(7**400) == "1.09 × 10^338"  # no float holds it
    assert compact(9_999 * 10**20) == "1.00 × 10^24"
    assert compact(10**5000) == "1.00 × 10^5000"  # nor str(), which stops at 4,300 digits
    assert compact(17_294_403) == "17.3 M"


def test_names_lose_the_unit_that_the_value_carries() -> None:
    assert plain_name("latency_ms") == "latency"
    assert plain_name("valid_accuracy") == "validation accuracy"
    assert plain_name("train_each_s") == "train each"
    assert plain_name("_") == "_"


def test_a_number_stays_beside_its_unit() -> None:
    assert keep_together("at 0.4 ms (1 min 54 s)") == "at 0.4\xa0ms (1\xa0min 54\xa0s)"
