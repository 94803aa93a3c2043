"""What a search gains by an estimator: exact over all draws, and no luck of a training in it."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.cost import derive
from assay.trust.gain import expected_worth, gains
from assay.trust.table import Price

FREE = Price(0.0, 0.0)


def named(values):
    return {f"a{i}": value for i, value in enumerate(values)}


def sample(num=40, *, noise=0.0, seed=0, **scores):
    """Return truths of two trainings, and scores that are as noisy as they say."""
    rng = derive(seed, "gain")
    worth = rng.normal(size=num)
    truths = named([[float(w + noise * rng.normal()) for _ in "12"] for w in worth])
    said = {
        name: named((worth + much * rng.normal(size=num)).tolist()) for name, much in scores.items()
    }
    return worth, truths, said


def second(truths):
    return dict.fromkeys(truths, 1.0)


def of(found, estimator, trainings=4):
    return next(g for g in found if (g.estimator, g.trainings) == (estimator, trainings))


@given(st.data())
def test_a_search_is_worth_its_mean_over_all_draws(data):
    num = data.draw(st.integers(1, 7))
    scored = data.draw(st.integers(1, num))
    trained = data.draw(st.integers(1, scored))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    places, worth = rng.permutation(num), rng.normal(size=num)

    def handed_back(draw):
        return worth[max(sorted(draw)[:trained], key=lambda item: places[item])]

    expected = np.mean([handed_back(d) for d in itertools.combinations(range(num), scored)])
    found = expected_worth(places, worth, scored=scored, trained=trained)
    assert found == pytest.approx(expected, abs=1e-12)


def test_large_samples_overflow_nothing():
    for trained in (1, 16, 500, 1000):
        found = expected_worth(np.arange(2000), np.ones(2000), scored=1000, trained=trained)
        assert found == pytest.approx(1.0, abs=1e-8)


def test_training_at_random_keeps_the_best_of_a_draw_of_which_another_training_judges():
    _, truths, said = sample(noise=0.5, macs=1.0)
    found = of(gains(truths, said, {"macs": FREE}, seconds=dict.fromkeys(truths, 60.0)), "")
    num, expected = len(truths), 0.0
    table = np.array(list(truths.values()))
    for chooses, judges in ((0, 1), (1, 0)):
        for i, index in enumerate(np.argsort(table[:, chooses])):
            expected += comb(i, 3) / comb(num, 4) * table[index, judges] / 2
    assert found.gain.value == pytest.approx(expected - table.mean(), abs=1e-12)
    assert (found.scored, found.trained, found.time_s) == (4, 4, 240.0)
    assert (found.more.value, found.real, found.p_holm) == (None, False, None)


def test_who_knows_the_truth_finds_the_best_of_what_is_scored():
    worth, truths, said = sample(oracle=0.0, liar=0.0)
    said["liar"] = {key: -score for key, score in said["oracle"].items()}
    found = gains(truths, said, dict.fromkeys(said, FREE), seconds=second(truths))
    falling, num = np.sort(worth)[::-1], len(worth)
    best = sum(comb(num - 1 - i, 9) / comb(num, 10) * w for i, w in enumerate(falling))
    assert of(found, "oracle").gain.value == pytest.approx(best - worth.mean(), abs=1e-12)
    for name, sign in (("oracle", 1), ("liar", -1)):
        assert of(found, name).real
        assert sign * of(found, name).more.value > 0
        assert of(found, name).more.excludes(0.0)
    order = [g.estimator for g in found]
    assert order == ["", "oracle", "liar"] * 2


def test_scores_that_say_nothing_are_worth_as_many_trainings_at_random():
    _, truths, _ = sample(noise=0.3)
    at_random = of(gains(truths, {}, {}, seconds=second(truths)), "")
    rng = derive(1, "orders")
    orders = {f"chance {i}": named(rng.permutation(40).tolist()) for i in range(60)}
    found = gains(truths, orders, dict.fromkeys(orders, FREE), seconds=second(truths))
    gained = [g.gain.value for g in found if g.trainings == 4 and g.estimator]
    assert np.mean(gained) == pytest.approx(at_random.gain.value, abs=4 * np.std(gained) / 60**0.5)
    assert not any(g.real for g in found)


def test_the_time_pays_for_preparing_scoring_and_training():
    _, truths, said = sample(free=1.0, dear=1.0, slow=1.0, never=1.0)
    costs = {
        "free": Price(0.0, 0.01),
        "dear": Price(15.0, 0.5),  # 20 of 40 seconds are for the estimate
        "slow": Price(0.0, 5.0),
        "never": Price(20.1, 0.0),
    }
    found = gains(truths, said, costs, seconds=dict.fromkeys(truths, 10.0))
    spent = {g.estimator: (g.scored, g.trained) for g in found if g.trainings == 4}
    assert spent == {"": (4, 4), "free": (10, 4), "dear": (10, 2), "slow": (4, 2)}
    shorter = {g.estimator: (g.scored, g.trained) for g in found if g.trainings == 2}
    assert shorter == {"": (2, 2), "free": (10, 2), "slow": (2, 1)}


def test_where_the_best_by_score_take_longer_fewer_of_them_are_trained():
    """Parameters find what trains longest; the time is in trainings of a random architecture."""
    num, n = 40, 10
    _, truths, said = sample(num, params=0.5, few=0.5)
    falling = sorted(truths, key=lambda key: -said["params"][key])
    said["few"] = {key: -score for key, score in said["params"].items()}
    takes_s = {key: 20.0 - 0.5 * place for place, key in enumerate(falling)}
    found = gains(truths, said, dict.fromkeys(said, FREE), seconds=takes_s)
    mean_s = float(np.mean(list(takes_s.values())))
    for name, order in (("params", falling), ("few", falling[::-1])):
        chance = np.array([
            [comb(i, j) * comb(num - 1 - i, n - 1 - j) / comb(num, n) for i in range(num)]
            for j in range(n)
        ])  # fmt: skip
        spent_s = np.cumsum(chance @ [takes_s[key] for key in order])
        fits = int((spent_s <= 4.05 * mean_s).sum())  # a twentieth of a training is forgiven
        assert of(found, name).trained == fits
        assert (fits < 4) == (name == "params")
    assert of(found, "").trained == 4
    assert of(found, "").time_s == pytest.approx(4 * mean_s)


def test_longer_times_want_larger_samples():
    for num, times in ((19, []), (20, [2]), (40, [2, 4]), (160, [2, 4, 8, 16])):
        _, truths, _ = sample(num)
        assert [g.trainings for g in gains(truths, {}, {}, seconds=second(truths))] == times


def test_what_was_not_trained_here_or_once_tells_nothing():
    _, truths, said = sample(macs=1.0)
    assert gains(truths, said, {"macs": FREE}, seconds=None) == ()
    once = {key: values[:1] for key, values in truths.items()}
    assert gains(once, said, {"macs": FREE}, seconds=second(truths)) == ()
    assert gains(truths | {"a0": [0.1]}, said, {"macs": FREE}, seconds=second(truths)) == ()


def test_what_an_estimator_failed_on_is_trained_last():
    worth, truths, said = sample(oracle=0.0)
    best = f"a{int(np.argmax(worth))}"
    whole = of(gains(truths, said, {"oracle": FREE}, seconds=second(truths)), "oracle")
    said["oracle"][best] = None
    failed = of(gains(truths, said, {"oracle": FREE}, seconds=second(truths)), "oracle")
    assert failed.gain.value < whole.gain.value


def test_luck_of_a_training_is_no_worth():
    found = []
    for seed in range(40):
        rng = derive(seed, "luck")
        truths = named(rng.normal(size=(40, 2)).tolist())
        said = {"lucky": {key: values[0] for key, values in truths.items()}}
        found.append(of(gains(truths, said, {"lucky": FREE}, seconds=second(truths)), ""))
    gained = np.array([g.gain.value for g in found])
    assert abs(gained.mean()) < 3 * gained.std() / 40**0.5
    assert sum(g.gain.excludes(0.0) for g in found) <= 8


def test_intervals_hold_what_a_search_of_the_whole_space_gains():
    """Of 100 samples of a space, whose gains are computed over all of it."""
    _, truths, said = sample(1500, noise=0.4, fair=1.0, seed=7)
    table = np.array(list(truths.values()))
    order = np.argsort([-said["fair"][key] for key in truths])
    whole = {}
    for name, scored, items in (("", 4, order), ("fair", 10, order)):
        judged = [
            expected_worth(
                np.argsort(np.argsort(table[:, a]))[items], table[items, b],
                scored=scored, trained=4,
            )
            for a, b in ((0, 1), (1, 0))
        ]  # fmt: skip
        whole[name] = float(np.mean(judged) - table.mean())
    keys, held = list(truths), {"": 0, "fair": 0, "more": 0}
    for seed in range(100):
        chosen = [keys[i] for i in derive(seed, "chosen").choice(1500, 40, replace=False)]
        found = gains(
            {k: truths[k] for k in chosen}, {"fair": {k: said["fair"][k] for k in chosen}},
            {"fair": FREE}, seconds=second(truths), seed=seed,
        )  # fmt: skip
        for name in ("", "fair"):
            held[name] += not of(found, name).gain.excludes(whole[name])
        held["more"] += not of(found, "fair").more.excludes(whole["fair"] - whole[""])
    assert min(held.values()) >= 85, held


def test_the_same_seed_tells_the_same():
    _, truths, said = sample(noise=0.3, macs=1.0)
    once, again = (
        gains(truths, said, {"macs": FREE}, seconds=second(truths), seed=3) for _ in "12"
    )
    assert once == again
