"""Choices of what is read say whose outputs these are, so that a controller can attend to them."""

from __future__ import annotations

import pytest
import torch

from assay.cost import derive
from assay.space.space import Space
from assay.strategies.learned.controller import Controller
from assay.zoo.enas import macro, micro


def known_before(space: Space, label: str, read: str) -> bool:
    order = list(space.choices)
    return order.index(read) < order.index(label)


def test_the_connections_of_the_macro_space_read_the_layers_before() -> None:
    space = macro(layers=4, channels=2)
    controller = Controller(space, hidden=8)
    source = {f"layer{k}.from{j}": f"layer{j}.op" for k in range(1, 5) for j in range(k - 1)}
    want = {la: "stem" if la.endswith("from0") else read for la, read in source.items()}
    assert dict(controller._reads) == {la: [(), (read,)] for la, read in want.items()}
    assert all(r == "stem" or known_before(space, la, r) for la, r in want.items())


def test_the_sides_of_the_micro_space_read_the_states_before() -> None:
    space = micro(nodes=2, channels=2)
    reads = Controller(space, hidden=8)._reads
    assert len(reads) == 8
    for label, options in reads.items():
        assert label.rpartition(".")[2].startswith("from_")
        for (read,) in options:
            assert read.endswith(("state0", "state1")) or known_before(space, label, read)


@pytest.mark.parametrize("space", [macro(layers=4, channels=2), micro(nodes=2, channels=2)])
def test_what_is_drawn_is_a_point_and_has_a_gradient(space: Space) -> None:
    controller = Controller(space, hidden=8)
    point = controller.sample(derive(0, "reads"))
    assert space.contains(point)
    controller.log_prob(point).backward()
    grads = [p.grad for p in controller.parameters() if p.grad is not None]
    assert any(float(g.abs().sum()) > 0 for g in grads)


def test_the_chances_of_all_architectures_add_up_to_one() -> None:
    space = macro(layers=3, channels=2)
    controller = Controller(space, hidden=4).double()
    with torch.no_grad():
        total = sum(float(controller.log_prob(point).exp()) for point in space.all())
    assert total == pytest.approx(1.0, abs=1e-9)
