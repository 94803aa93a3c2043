"""The first lines of a report: what was got, what it cost, what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.architecture import Architecture
from assay.report.content import Content
from assay.report.tables import is_tested
from assay.report.units import amount, compact, duration, plain_name

__all__ = [
    "Tile", "estimator_name", "headline", "lead", "name_of", "quality_of", "tiles", "title",
    "weights_of",
]  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One figure of the first row: its value, its name and where it comes from."""

    value: str
    name: str
    note: str


def name_of(setting: Any) -> str:
    """Return the name in a setting; "" for none.

    A setting is a name, or a mapping with a "name", or with the "class" of an object: of
    "assay.estimators.one_shot:OneShot" the name is "one-shot".
    """
    if isinstance(setting, Mapping):
        if "name" not in setting and "class" in setting:
            bare = str(setting["class"]).rpartition(":")[2]
            return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", bare).lower()
        setting = setting.get("name")
    return "" if setting is None else str(setting)


def title(content: Content) -> str:
    """Name the study by its task and its space or model, as far as they are known."""
    settings = content.settings
    origin = settings.get("origin") or {}
    space = origin.get("space") or origin.get("model") or name_of(settings.get("space"))
    names = (name_of(settings.get("task")), space)
    return " · ".join(name for name in names if name) or "a search"


def headline(content: Content) -> str:
    """Answer in one sentence what was got and what it cost."""
    cost = duration(content.spent_s)
    if content.winner is None:
        return f"No winner yet: {_architectures(_fates(content)[0])} scored in {cost}."
    metrics = content.winner.get("metrics") or {}
    quality = quality_of(metrics)
    parts = ["A trained network"]
    if quality is not None:
        parts.append(f"with {_quality(quality, metrics[quality])}")
    if content.quantity in metrics:
        said = amount(content.quantity, metrics[content.quantity])
        parts.append(f"at {said} {plain_name(content.quantity)}")
    limit = (
        ""
        if content.limit is None
        else (f" (limit {amount(content.quantity, float(content.limit))})")
    )
    return f"{' '.join(parts)}{limit}, found and trained in {cost}."


def weights_of(content: Content) -> str:
    """Say of which weights the finalists were trained."""
    finalists = content.settings.get("finalists")
    told = finalists.get("weights") if isinstance(finalists, Mapping) else None
    return "on, from the supernet's weights" if told == "supernet" else "from scratch"


def lead(content: Content) -> list[str]:
    """Say in a few sentences what was searched, what was measured and what was only estimated."""
    said = (_under_way(content), _searched(content), _measured(content), _saved(content))
    return [text for text in said if text]


def tiles(content: Content) -> list[Tile]:
    """Return the winner's figures and the cost, each with where it comes from."""
    metrics = (content.winner or {}).get("metrics") or {}
    found = []
    quality = quality_of(metrics)
    if quality is not None:
        value = amount(quality, metrics[quality])
        once = "test split, opened once"
        where = once if is_tested(metrics) else "it chose the winner; there is no test split"
        found.append(Tile(value, plain_name(quality), where))
    notes = {
        "latency_ms": "whole network, measured",
        "macs": "counted, one forward pass",
        "params": "counted",
        "memory_bytes": "counted",
        "model_bytes": "counted",
    }
    wanted = dict.fromkeys([content.quantity, "latency_ms", "macs", "params", *content.limits])
    for name in (name for name in wanted if name in metrics):
        note = notes.get(name, "measured")
        if name in content.limits:
            note = f"{note}; limit {amount(name, float(content.limits[name]))}"
        found.append(Tile(amount(name, metrics[name]), plain_name(name), note))
    found.append(Tile(duration(content.spent_s), "cost", "all steps together"))
    return found


def quality_of(metrics: Mapping[str, Any]) -> str | None:
    """Return the name of the figure that says how good a network is: the accuracy if there is one.

    It is of the test split, or where nothing was tested of the validation split.
    """
    split = "test_" if is_tested(metrics) else "valid_"
    names = sorted(name for name in metrics if name.startswith(split))
    first = [name for name in names if name == f"{split}accuracy"]
    scores = [name for name in names if name != f"{split}loss"]
    return next(iter([*first, *scores, *names]), None)


def estimator_name(content: Content) -> str:
    """Return the name of what scored the trials; "" when it is not known."""
    return name_of(content.settings.get("estimator"))


def _quality(name: str, value: Any) -> str:
    said = amount(name, value)
    return (
        f"{said} {plain_name(name)}"
        if name.endswith("accuracy")
        else (f"a {plain_name(name)} of {said}")
    )


def _under_way(content: Content) -> str:
    if content.winner is not None or not content.under_way:
        return ""
    return f"It has come to: {content.under_way}."


def _fates(content: Content) -> list[int]:
    """Count the architectures that were scored, else over a limit, else failed.

    Each counts once: of halving it has a trial a rung.
    """
    known: set[Architecture] = set()
    counts = []
    for trials in (content.scored, content.infeasible, content.failed):
        new = {trial.architecture for trial in trials} - known
        known |= new
        counts.append(len(new))
    return counts


def _architectures(num: int) -> str:
    return f"{num:,} architecture{'s' * (num != 1)}"


def _searched(content: Content) -> str:
    scored, infeasible, failed = _fates(content)
    proposed = scored + infeasible + failed
    if not proposed:
        return "No architecture has been proposed yet."
    size = content.space.get("size")
    of = f" out of {compact(int(size))}" if size is not None else ""
    by = name_of(content.settings.get("strategy"))
    said = [f"{scored:,} scored by {estimator_name(content) or 'the estimator'}"]
    if infeasible:
        held = ", ".join(
            f"{plain_name(name)} {amount(name, float(limit))}"
            for name, limit in content.limits.items()
        )
        said.append(f"{infeasible:,} over a limit ({held}) and never scored")
    if failed:
        said.append(f"{failed:,} failed")
    finalists = len({row["trial"] for row in content.finalists})
    if finalists:
        said.append(f"{finalists:,} trained {weights_of(content)}")
    return (
        f"{_architectures(proposed)}{of} {'was' if proposed == 1 else 'were'} proposed"
        f"{f' by {by}' if by else ''}: "
        f"{', '.join(said)}."
    )


def _measured(content: Content) -> str:
    parts = []
    target = content.settings.get("target")
    if isinstance(target, Mapping):
        threads = "{} thread" if target.get("threads") == 1 else "{} threads"
        known = (
            ("runtime", "{}"), ("accelerator", "{}"), ("threads", threads),
            ("batch", "batch {}"), ("runs", "median of up to {} runs"),
        )  # fmt: skip
        words = [text.format(target[key]) for key, text in known if target.get(key) is not None]
        parts.append(f"Latency was measured on the machine that ran this ({', '.join(words)}).")
    parts.append(
        "A score ranks architectures within this search and is not the accuracy of a trained "
        "network."
    )
    return " ".join(parts)


def _saved(content: Content) -> str:
    saving = content.saving
    if not saving:
        return ""
    spent, each = float(saving["spent_s"]), float(saving["train_each_s"])
    ratio = f", {each / spent:.1f} times as long" if each > spent > 0 else ""
    return (
        f"Finding the winner took {duration(spent)}; training every scored architecture instead "
        f"would have taken {duration(each)}{ratio}."
    )
