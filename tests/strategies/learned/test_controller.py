"""The controller: its probabilities against enumeration, its attention against the equation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from assay.errors import InvalidSpace
from assay.space.choices import Inputs, OneOf
from assay.space.space import Space
from assay.strategies.learned.controller import Controller
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.reinforce import Reinforce
from tests.strategies.learned.test_alphas import nested


def connections() -> Space:
    """Three layers, what each adds of those before the last, and an `Inputs` of two."""

    def op(k: int) -> OneOf:
        return OneOf(a=nn.Linear(2, 2), b=nn.Tanh(), label=f"layer{k}.op")

    def skip(j: int, k: int) -> OneOf:
        chosen = OneOf(apart=nn.Tanh(), skip=nn.Linear(2, 2), label=f"layer{k}.from{j}")
        chosen.reads = {"apart": (), "skip": ("stem" if j == 0 else f"layer{j}.op",)}
        return chosen

    layers = [op(1), op(2), skip(0, 2), op(3), skip(0, 3), skip(1, 3)]
    return Space(nn.Sequential(*layers, Inputs(3, 2, label="last")))


def randomise(controller: Controller, seed: int = 1) -> Controller:
    """Give random weights of double precision."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in controller.double().parameters():
            parameter.normal_(0.0, 0.6, generator=generator)
    return controller


def probability(controller: Controller, architecture) -> float:
    return float(torch.exp(controller.log_prob(architecture).detach()))


@pytest.mark.parametrize("make", [nested, connections])
@pytest.mark.parametrize("bound", [0.0, 1.5])
def test_probabilities_of_all_architectures_add_up_to_one(make, bound):
    space = make()
    controller = randomise(Controller(space, hidden=8, bound=bound))
    assert sum(probability(controller, a) for a in space.all()) == pytest.approx(1.0, abs=1e-9)


def test_draws_follow_the_probabilities():
    space, rng, n = nested(), np.random.default_rng(0), 1000
    controller = randomise(Controller(space, hidden=8))
    points = list(space.all())
    counts = dict.fromkeys(points, 0)
    for _ in range(n):
        counts[controller.sample(rng)] += 1
    expected = {a: n * probability(controller, a) for a in points}
    likely = [a for a in points if expected[a] > 5]
    chi2 = sum((counts[a] - expected[a]) ** 2 / expected[a] for a in likely)
    assert chi2 < len(likely) + 5 * np.sqrt(2 * len(likely))


# --- what is read ---------------------------------------------------------------------------------


def outputs_of(controller: Controller, architecture) -> dict[str, torch.Tensor]:
    """Return the output of each decision's own step, one LSTM step after another."""
    found, at, first = {}, 0, 1
    state = [None] * len(controller.cells)
    for label, choice in controller.space.choices.items():
        x = controller.embedding.weight[at][None]
        for i, cell in enumerate(controller.cells):
            state[i] = cell(x, state[i])
            x = state[i][0]
        found[label] = x[0]
        at = first + choice.options.index(architecture[label])
        first += len(choice.options)
    return found


def score(controller: Controller, read: torch.Tensor, now: torch.Tensor) -> float:
    attention = controller.attention
    mixed = torch.tanh(attention.before.weight @ read + attention.now.weight @ now)
    return float((attention.score.weight[0] @ mixed).detach())


@pytest.mark.parametrize("layers", [1, 2])
def test_a_connection_is_there_by_the_sigmoid_of_the_published_score(layers):
    space = connections()
    controller = randomise(Controller(space, hidden=5, layers=layers))
    order = list(space.choices)
    stem = controller.attention.given.weight[controller.attention._at["stem"]]
    for architecture in itertools.islice(space.all(), 0, None, 7):
        h = outputs_of(controller, architecture)
        after = h[order[order.index("layer1.op") + 1]]
        chances = controller.taken_in(architecture)
        for label, read in {
            "layer2.from0": stem, "layer3.from0": stem, "layer3.from1": after,
        }.items():  # fmt: skip
            expected = 1 / (1 + math.exp(-score(controller, read, h[label])))
            assert space.choices[label].options == ("apart", "skip")
            assert float(chances[label][1]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("temperature", "bound"), [(1.0, 0.0), (0.5, 0.0), (0.5, 2.5)])
def test_a_set_of_inputs_is_drawn_as_so_many_of_independent_connections(temperature, bound):
    def bounded(score: float) -> float:
        score /= temperature
        return bound * math.tanh(score) if bound else score

    space = connections()
    controller = randomise(Controller(space, hidden=5, temperature=temperature, bound=bound))
    architecture = next(iter(space.all()))
    now = outputs_of(controller, architecture)["last"]
    attention = controller.attention
    given = [attention.given.weight[attention._at[f"last[{i}]"]] for i in range(3)]
    alone = [1 / (1 + math.exp(-bounded(score(controller, read, now)))) for read in given]
    weights = {
        s: math.prod(p if i in s else 1 - p for i, p in enumerate(alone))
        for s in itertools.combinations(range(3), 2)
    }
    chances = controller.taken_in(architecture)["last"].tolist()
    expected = [weights[s] / sum(weights.values()) for s in space.choices["last"].options]
    assert chances == pytest.approx(expected, abs=1e-12)


def test_a_connection_knows_what_the_layer_that_it_reads_computes():
    space = connections()
    controller = randomise(Controller(space, hidden=5))
    with torch.no_grad():  # only the read part counts
        controller.attention.now.weight.zero_()
    a, b = (
        space.complete({"layer1.op": op}, lambda choice: choice.options[0]) for op in ("a", "b")
    )
    one, other = controller.taken_in(a), controller.taken_in(b)
    assert float(one["layer3.from1"][1]) != pytest.approx(float(other["layer3.from1"][1]), abs=1e-3)
    assert float(one["layer3.from0"][1]) == pytest.approx(float(other["layer3.from0"][1]), abs=1e-9)


def test_the_gradient_of_a_log_probability_is_its_finite_difference():
    space = connections()
    controller = randomise(Controller(space, hidden=4))
    architecture = space.complete({"layer3.from1": "skip"}, lambda choice: choice.options[-1])
    names = dict(controller.named_parameters())
    told = torch.autograd.grad(controller.log_prob(architecture), list(names.values()))
    rng, step = np.random.default_rng(0), 1e-6
    for (name, parameter), slope in zip(names.items(), told):
        flat = parameter.data.view(-1)
        i = int(rng.integers(len(flat)))
        values = []
        for sign in (+1, -1):
            flat[i] += sign * step
            values.append(float(controller.log_prob(architecture).detach()))
            flat[i] -= sign * step
        assert float(slope.reshape(-1)[i]) == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8
        ), name


def softened(logs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log-probabilities of logits divided by a temperature, from those without."""
    return torch.log_softmax(logs / temperature, 0)


@pytest.mark.parametrize("make", [nested, connections])
def test_a_temperature_divides_the_logits_of_every_decision(make):
    space = make()
    plain, soft = (randomise(Controller(space, hidden=5, temperature=t)) for t in (1.0, 5.0))
    for architecture in itertools.islice(space.all(), 0, None, 7):
        told, before = soft.steps(architecture), plain.steps(architecture)
        for label, logs in told.items():
            torch.testing.assert_close(logs, softened(before[label], 5.0))


def test_it_divides_them_before_they_are_bounded():
    space = nested()
    controller = Controller(space, hidden=4, temperature=5.0, bound=2.5).double()
    logits = torch.tensor([-4.0, 1.0, 9.0], dtype=torch.float64)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.zero_()
        for head in controller.heads:
            head.bias.copy_(logits[: len(head.bias)])
    for label, logs in controller.steps(next(iter(space.all()))).items():
        of_them = logits[: len(space.choices[label].options)]
        expected = torch.log_softmax(2.5 * torch.tanh(of_them / 5.0), 0)
        torch.testing.assert_close(logs, expected)


def nats(*logits: float) -> float:
    total = sum(map(math.exp, logits))
    return math.log(total) - sum(x * math.exp(x) for x in logits) / total


@pytest.mark.parametrize("bound", [0.0, 1.5, 2.5])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 40.0])
def test_the_entropy_is_told_from_the_least_that_the_bound_allows_to_the_largest(bound, strength):
    """Three operations, a connection, and two of three inputs; of each the first is favoured."""
    op = OneOf(a=nn.Tanh(), b=nn.ReLU(), c=nn.Identity(), label="op")
    connection = OneOf(skip=nn.Linear(2, 2), apart=nn.Tanh(), label="connection")
    connection.reads = {"skip": ("stem",), "apart": ()}
    space = Space(nn.Sequential(op, connection, Inputs(3, 2, label="last")))
    controller = Controller(space, hidden=1, bound=bound).double()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.zero_()
        controller.heads[0].bias.fill_(-strength)[0] = strength
        controller.attention.before.weight.fill_(1.0)
        controller.attention.score.weight.fill_(strength)
        controller.attention.given.weight.fill_(99.0)
        controller.attention.given.weight[controller.attention._at["last[2]"]] = -99.0

    def entropy(s: float) -> float:
        return nats(s, -s, -s) + nats(s, 0) + nats(2 * s, 0, 0)

    now = entropy(bound * math.tanh(strength) if bound else strength)
    least = entropy(bound) if bound else 0.0
    expected = (now - least) / (entropy(0.0) - least)
    assert controller.entropy_share() == pytest.approx(expected, abs=1e-9)


def test_only_what_reads_nothing_has_a_head_of_its_own():
    space = connections()
    controller = Controller(space, hidden=4)
    assert len(controller.heads) == sum(label.endswith("op") for label in space.choices)
    assert not hasattr(Controller(nested(), hidden=4), "attention")


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (
            {"conv": ("stem",), "pool": ("stem",)},
            "'conv' and 'pool' read the same, .*stem.* two ch",
        ),
        ({"conv": ("a", "b"), "pool": ("b", "a")}, "'conv' and 'pool' read the same"),
        ({"conv": ("stem",)}, "has reads for 'conv', and none for its option 'pool'; give \\(\\)"),
    ],
)
def test_reads_that_cannot_tell_options_apart_are_refused(reads, said):
    chosen = OneOf(conv=nn.Linear(2, 2), pool=nn.Identity(), label="op")
    chosen.reads = reads
    space = Space(nn.Sequential(chosen))
    for refused in (Controller, Reinforce().check, ENAS().check):
        with pytest.raises(InvalidSpace, match=f"choice 'op'.*{said}"):
            refused(space)
