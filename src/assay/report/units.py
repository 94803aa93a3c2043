"""Numbers as a reader meets them: rounded, with their unit, under a plain name."""

from __future__ import annotations

import math
import re

__all__ = [
    "amount",
    "axis",
    "compact",
    "duration",
    "in_full",
    "keep_together",
    "plain_name",
    "share",
    "shortened",
]

_NAMES = {
    "latency_ms": "latency",
    "latency_p90_ms": "latency, 90th percentile",
    "latency_table_ms": "latency by the table",
    "macs": "MACs",
    "params": "parameters",
    "memory_bytes": "memory",
    "model_bytes": "model size",
    "model_onnx_ms": "latency of model.onnx",
}
_UNITS = {"_ms": "ms", "_s": "s", "_bytes": "bytes"}
_COUNTS = {"macs", "params", "samples", "size"}
_SCALES = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))
_LETTERS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


def plain_name(name: str) -> str:
    """Say a quantity's name in words: "latency_ms" is "latency", "test_accuracy" "test accuracy".

    The unit in a name's end is dropped, since `amount` writes it beside the number.
    """
    if name in _NAMES:
        return _NAMES[name]
    for suffix in _UNITS:
        if name.endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    if name.startswith("valid_"):
        name = f"validation{name[5:]}"
    return name.replace("_", " ").strip() or name


def amount(name: str, value: object) -> str:
    """Write a value with the unit that its name tells.

    Args:
        name: Ends in `_ms`, `_s` or `_bytes`, or is a count, a share or a bare number.
        value: A number; anything else is written as it is.
    Returns:
        Such as "0.421 ms", "1.23 M", "97.78 %", "1.2 MiB"; "–" for None or NaN.
    Example:
        >>> amount("latency_ms", 0.4213), amount("macs", 1234567), amount("test_accuracy", 0.97778)
        ('0.421 ms', '1.23 M', '97.78 %')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_ms"):
        if 0.001 <= abs(value) < 1:  # columns of such figures stay comparable
            return f"{value:.{3 if abs(value) >= 0.1 else 4}f} ms"
        return f"{_digits(value)} ms"
    if name.endswith("_s"):
        return duration(value)
    if name.endswith("_bytes"):
        return _bytes(value)
    if name == "accuracy" or name.endswith(("_accuracy", "_share")):
        return share(value)
    if name in _COUNTS or name.endswith("_macs"):
        return compact(value)
    return f"{value:,}" if isinstance(value, int) else _digits(value)


def axis(name: str, largest: float) -> tuple[str, float]:
    """Return an axis label with its unit, and what to divide the values by.

    Example:
        >>> axis("macs", 3.2e6), axis("latency_ms", 0.4)
        (('MACs (millions)', 1000000.0), ('latency (ms)', 1.0))
    """
    if name.endswith("_bytes"):
        for scale, unit in _BYTES:
            if abs(largest) >= scale:
                return f"{plain_name(name)} ({unit})", scale
        return f"{plain_name(name)} (bytes)", 1.0
    if name in _COUNTS or name.endswith("_macs"):
        for scale, word in _SCALES:
            if abs(largest) >= scale:
                return f"{plain_name(name)} ({word})", scale
        return plain_name(name), 1.0
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return f"{plain_name(name)} ({unit})", 1.0
    return plain_name(name), 1.0


def duration(seconds: float) -> str:
    """Write seconds of time in the two largest units that say something.

    Example:
        >>> duration(0.034), duration(4.21), duration(114), duration(11520), duration(200000)
        ('34 ms', '4.2 s', '1 min 54 s', '3 h 12 min', '2 d 8 h')
    """
    if not math.isfinite(seconds):
        return "–"
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds else "0 s"
    if abs(seconds) < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for big, big_unit, small, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        # 3,599.7 s rounds up to an hour here, not to "59 min 60 s"
        units = round(whole / small)
        if units * small >= big:
            first, second = divmod(units, big // small)
            return (
                f"{first:,} {big_unit} {second} {small_unit}"
                if second
                else (f"{first:,} {big_unit}")
            )
    return f"{whole} s"


def compact(value: float) -> str:
    """Write a count in three digits: 1234567 is "1.23 M"; beyond 10^15 as a power of ten.

    An exact integer of any length is taken, since a space has no largest size.
    """
    if isinstance(value, int) and abs(value) >= 10**15:
        exponent = math.floor(math.log10(abs(value)))  # takes an int that no float holds
        mantissa = 10 ** (math.log10(abs(value)) - exponent)
        if mantissa >= 9.995:
            mantissa, exponent = 1.0, exponent + 1
        return f"{'-' if value < 0 else ''}{mantissa:.2f} × 10^{exponent}"
    for scale, letter in _LETTERS:
        # 999,600 would round to "1000 k"
        if abs(value) >= scale * 0.9995:
            return f"{_three(value / scale)}{letter}"
    return f"{value:.0f}" if float(value).is_integer() else _digits(float(value))


def in_full(value: float) -> str:
    """Write a limit as one would type it: four digits, or all of those before the point.

    Example:
        >>> in_full(0.42137), in_full(1234567.0)
        ('0.4214', '1,234,567')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters; one that was longer ends in "…"."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def share(value: float) -> str:
    """Write a share of one in per cent with two decimals."""
    return f"{value * 100:.2f} %"


def keep_together(text: str) -> str:
    """Put a no-break space after every number, so that no line ends between it and its unit."""
    return re.sub(r"(?<=\d) (?=\S)", "\N{NO-BREAK SPACE}", text)


def _bytes(value: float) -> str:
    for scale, unit in _BYTES:
        if abs(value) >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:.0f} bytes"


def _three(value: float) -> str:
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f}"


def _digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - magnitude)}f}" if magnitude < 3 else f"{value:,.0f}"
