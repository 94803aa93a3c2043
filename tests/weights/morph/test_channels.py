from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.weights.morph.channels import PLAIN, Axis, Group, Picks, Run

runs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=3)


@given(runs, st.data())
def test_shares_of_an_old_position_add_up_to_one(sizes, data):
    axis = Axis(-1, tuple(Run(Group(size), times) for size, times in sizes))
    maps = [
        torch.tensor(data.draw(st.permutations([*range(size), *extra])))
        for size, _ in sizes
        for extra in [data.draw(st.lists(st.integers(0, size - 1), max_size=4))]
    ]
    picks = Picks.along(axis, maps)
    assert len(picks.source) == sum(len(m) * times for m, (_, times) in zip(maps, sizes))
    total = torch.zeros(axis.length, dtype=torch.float64).index_add(0, picks.source, picks.share)
    assert torch.allclose(total, torch.ones(axis.length, dtype=torch.float64), atol=1e-12)
    assert int((~picks.copies).sum()) == axis.length
    seen: set[int] = set()
    for position, copy in zip(picks.source.tolist(), picks.copies.tolist()):
        assert copy == (position in seen)
        seen.add(position)


def test_positions_of_a_channel_stay_together():
    axis = Axis(-1, (Run(Group(2), times=2), Run(Group(1))))
    picks = Picks.along(axis, [torch.tensor([0, 1, 1]), torch.tensor([0])])
    assert picks.source.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert picks.share.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 1]


def test_a_flattened_area_is_worked_out_once_a_layer_reads_it():
    a, b = Group(3), Group(2)
    axis = Axis(-1, (Run(a, spread="flat"), Run(b, times=4)))
    assert axis.at(3 * 9 + 8) == Axis(-1, (Run(a, 9), Run(b, 4)))
    assert axis.at(3 * 9 + 9) is None
    assert axis.at(8) is None
    assert Axis(-1, (Run(a, spread="one"), Run(b, spread="other"))).at(20) is None
    assert Axis(-3, (Run(a),)).at(3) == Axis(-3, (Run(a),))
    assert Axis(-3, (Run(a),)).at(4) is None
    assert PLAIN.at(4) is None


def test_groups_that_meet_are_one():
    a, b, c = Group(4), Group(4), Group(6)
    a.divide(2)
    b.fix("because")
    assert Axis(-3, (Run(a), Run(c))).tie(Axis(-3, (Run(b), Run(c))))
    assert a.root is b.root
    assert (a.root.parts, a.root.fixed) == (2, ["because"])
    assert not Axis(-3, (Run(a),)).tie(Axis(-3, (Run(c),)))
    assert not Axis(-3, (Run(a),)).tie(Axis(-1, (Run(b),)))
    assert not Axis(-3, (Run(a),)).tie(Axis(-3, (Run(b), Run(c))))
    assert a.root is not c.root
