from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from assay.report import figures
from assay.report.marks import LIMIT, bin_points
from assay.report.svg import COLOURS, printable

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str, group: str) -> int:
    """Count the marks in the groups of a class."""
    root = ET.fromstring(svg)
    found = [g for g in root.iter(f"{SVG}g") if g.get("class") == group]
    return sum(1 for g in found for _ in g.iter(f"{SVG}use"))


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def points(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.gamma(8, 0.05, n), rng.normal(0.9, 0.02, n)


@functools.cache
def all_figures() -> dict[str, str]:
    x, y = points(60)
    return {
        "front": figures.front(
            x, y, limit=0.5, infeasible=[0.6, 0.7], finalists=[(0.3, 0.9)], winner=(0.3, 0.9)
        ),
        "progress": figures.progress(range(60), y, infeasible=[60, 61], failed=[62]),
        "predicted": figures.predicted_against_measured(
            x, x * 1.05, rmse_ms=0.0123, tau=0.957, within_10=0.98
        ),
        "macs": figures.macs_against_latency(x * 1e6, x, pairs=[(0, 1), (3, 2)]),
        "ledger": figures.ledger({"train it once": 41.0, "search": 0.0}),
        "saving": figures.saving(114.0, 11_520.0),
    }


def test_every_figure_is_well_formed_labelled_themed_and_repeatable() -> None:
    drawn, again = all_figures(), all_figures.__wrapped__()
    assert drawn == again
    for name, svg in drawn.items():
        root = ET.fromstring(svg)
        assert root.get("class") == f"figure {name}"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root.get("viewBox", "").startswith("0 0 400 ")
        assert root.get("width") is None
        assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg), "a colour outside the theme"
        assert set(re.findall(r"var\(--(\w+)", svg)) <= {*COLOURS, "sans"}
        for tag in ("style", "metadata", "script", "image"):
            assert root.find(f".//{SVG}{tag}") is None
        assert len(svg) < 40_000


def test_no_two_figures_share_an_id_and_every_reference_resolves() -> None:
    ids: list[str] = []
    for svg in all_figures().values():
        own = {e.get("id", "") for e in ET.fromstring(svg).iter()} - {""}
        used = re.findall(r'(?:href="|url\()#([\w.-]+)', svg)
        assert set(used) == own
        ids += own
    assert len(ids) == len(set(ids))


def test_front_draws_each_trial_the_front_the_limit_and_who_was_not_scored() -> None:
    cost, score = [3.0, 1.0, 2.0, 2.0], [0.5, 0.1, 0.4, 0.2]
    svg = figures.front(
        cost, score, limit=3.5, infeasible=[4.0, 5.0, 6.0], finalists=[(3.0, 0.5), (2.0, 0.4)],
        winner=(2.0, 0.4), score_name="one-shot score",
    )  # fmt: skip
    counts = {g: marks(svg, g) for g in ("trials", "pareto", "infeasible", "finalists", "winner")}
    assert counts == {"trials": 4, "pareto": 3, "infeasible": 3, "finalists": 2, "winner": 1}
    assert {"limit 3.50 ms", "latency (ms)", "one-shot score", "3 over a limit"} <= set(words(svg))
    assert 'class="over"' in svg
    assert 'class="over"' not in figures.front(cost, score)


def test_front_line_goes_by_cost_keeps_equals_and_drops_what_is_beaten() -> None:
    cost = np.array([2.0, 1.0, 2.0, 1.0, 3.0, 0.5])
    score = np.array([5.0, 4.0, 5.0, 3.0, 5.0, 4.0])
    assert figures.front_line(cost, score).tolist() == [5, 0, 2]
    assert figures.front_line(np.array([]), np.array([])).tolist() == []


def test_progress_marks_failures_and_the_steps_of_the_best() -> None:
    svg = figures.progress([0, 2, 3, 5], [0.1, 0.3, 0.2, 0.4], infeasible=[1], failed=[4, 6])
    assert marks(svg, "trials") == 4
    assert marks(svg, "failed") == 2
    assert marks(svg, "infeasible") == 1
    assert "rose 2 times" in svg


def test_predicted_says_its_error_and_macs_its_pairs() -> None:
    drawn = all_figures()
    assert {"RMSE 0.0123 ms", "Kendall τ 0.957", "98 % within ±10 %"} <= set(
        words(drawn["predicted"])
    )
    assert marks(drawn["predicted"], "networks") == 60
    x, _ = points(60)
    ratio = max(x[0], x[1]) / min(x[0], x[1])
    assert f"A  {ratio:.2f} ×" in [w.replace("\xa0", " ") for w in words(drawn["macs"])]
    assert marks(drawn["macs"], "pair") == 4


def test_bars_carry_their_time() -> None:
    drawn = all_figures()
    assert words(drawn["ledger"]) == ["train it once", "search", "41 s", "0 s"]
    assert words(drawn["saving"]) == ["this search", "training each", "1 min 54 s", "3 h 12 min"]


@pytest.mark.parametrize("n", [LIMIT, LIMIT + 1])
def test_above_the_limit_points_become_cells(n: int) -> None:
    x, y = points(n)
    svg = figures.front(x, y, infeasible=x + 1)
    binned = n > LIMIT
    assert ('class="trials-binned"' in svg, marks(svg, "trials")) == (binned, 0 if binned else n)
    assert marks(svg, "infeasible") == n if not binned else marks(svg, "infeasible") <= 400


def test_the_cells_hold_every_point_once() -> None:
    x, y = points(5000)
    counts, x_edges, y_edges = bin_points(x, y, (x.min(), x.max(), y.min(), y.max()))
    assert counts.sum() == 5000
    assert counts.shape == (46, 28)
    assert (x_edges[0], x_edges[-1], y_edges[0]) == (x.min(), x.max(), y.min())
    inside = (x >= x_edges[3]) & (x < x_edges[4]) & (y >= y_edges[9]) & (y < y_edges[10])
    assert counts[3, 9] == inside.sum()


def test_a_score_far_below_is_counted_in_words_and_does_not_flatten_the_rest() -> None:
    _, y = points(100)
    svg = figures.progress(range(101), [*y, -1e6])
    assert "1 score below this axis" in words(svg)
    assert marks(svg, "trials") == 101
    assert "0.90" in words(svg)  # the others still have an axis of their own


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one_point_can_be_drawn(n: int) -> None:
    for svg in (
        figures.front([0.3] * n, [0.5] * n),
        figures.progress(range(n), [0.5] * n),
        figures.predicted_against_measured([0.3] * n, [0.3] * n),
        figures.macs_against_latency([10] * n, [0.3] * n),
        figures.ledger({}),
    ):
        ET.fromstring(svg)


def test_a_users_text_is_text() -> None:
    name = printable("$x_1$ </text><script>alert(1)</script>\x00")
    svg = figures.front([1.0, 2.0], [0.1, 0.2], quantity=name, score_name=name)
    assert "<script" not in svg
    assert sum("$x_1$ </text><script>alert(1)</script>\N{REPLACEMENT CHARACTER}" in w
               for w in words(svg)) == 1  # fmt: skip


def test_drawing_leaves_matplotlibs_style_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.saving(1.0, 2.0)
    assert dict(matplotlib.rcParams) == before
