from __future__ import annotations

from dataclasses import replace

from assay.report.pairs import Network, equal_macs


def test_the_pair_that_differs_most_comes_first_and_names_its_one_decision() -> None:
    nets = [
        Network({"a": "k3"}, 1000, 1.0),
        Network({"a": "k7"}, 1020, 1.5),  # 2 % above the first: still equal
        Network({"a": "skip"}, 1041, 9.0),  # more than 2 % above both
    ]
    [pair] = equal_macs(nets)
    assert (pair.fast, pair.slow, pair.ratio) == (0, 1, 1.5)
    assert pair.ops == ("a: k7 in the slower, k3 in the faster",)
    assert pair.decisions == (("a", "k3", "k7"),)


def test_no_network_is_in_two_pairs_and_order_is_by_ratio() -> None:
    nets = [Network({"a": str(i)}, 500, ms) for i, ms in enumerate((1.0, 2.0, 4.0, 8.0, 8.0))]
    pairs = equal_macs(nets)
    assert [(p.fast, p.slow, p.ratio) for p in pairs] == [(0, 3, 8.0), (1, 4, 4.0)]


def test_equal_latency_makes_no_pair_and_most_is_kept() -> None:
    assert equal_macs([Network({}, 5, 1.0), Network({}, 5, 1.0)]) == []
    assert equal_macs([Network({}, 5, 1.0), Network({}, 5, 1.004)]) == []
    assert equal_macs([Network({}, 5, 0.0), Network({}, 5, 1.0)]) == []
    nets = [Network({"a": str(i)}, 5, 1.0 + i) for i in range(20)]
    assert len(equal_macs(nets, most=3)) == 3
    assert equal_macs([]) == []


def test_ops_are_counted_where_many_decisions_differ() -> None:
    fast = Network({"a": "k3", "b": "k3", "c": "k5", "w": 16}, 100, 1.0)
    slow = Network({"a": "k7", "b": "k7", "c": "k5", "w": 24, "d": 2}, 100, 2.0)
    [pair] = equal_macs([fast, slow])
    assert pair.ops == (
        "2 × k3 more in the faster",
        "2 × k7 more in the slower",
        "d: 2 in the slower, absent in the faster",
    )
    assert [label for label, _, _ in pair.decisions] == ["a", "b", "d", "w"]


def test_ops_are_named_by_their_time_where_the_table_knows_it() -> None:
    fast = Network({"a": "x", "b": "x"}, 100, 1.0, {"conv 3×3": 0.5, "linear": 0.1})
    slow = Network({"a": "y", "b": "y"}, 100, 2.0, {"depthwise 7×7": 1.25, "linear": 0.1})
    [pair] = equal_macs([slow, fast])
    assert pair.ops == (
        "depthwise 7×7: 1.25 ms more in the slower",
        "conv 3×3: 0.500 ms less in the slower",
    )


def test_a_difference_by_the_table_that_explains_nothing_is_not_told() -> None:
    fast = Network({"a": "x"}, 100, 1.0, {"conv": 0.5, "linear": 0.1})
    slow = Network({"a": "y"}, 100, 2.0, {"conv": 0.4988, "linear": 0.13})
    [pair] = equal_macs([slow, fast])
    assert pair.ops == ("nothing in the table tells them apart",)
    tiny = [replace(n, latency_ms=n.latency_ms / 1000) for n in (fast, slow)]
    [pair] = equal_macs(tiny)
    assert pair.ops == (
        "linear: 0.0300 ms more in the slower",
        "conv: 0.0012 ms less in the slower",
    )
