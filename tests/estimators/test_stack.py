"""Weighing opinions: the good are found, the bad get nothing, and one alone may win."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from assay.cost import derive
from assay.estimators.stack import stacked


def sample(num, *noises, seed=0):
    """Return standard scores and opinions: the score plus noise of these deviations, standard."""
    rng = derive(seed, "stack")
    scores = rng.normal(size=num)
    opinions = np.stack([scores + noise * rng.normal(size=num) for noise in noises], axis=1)
    return (scores - scores.mean()) / scores.std(), (opinions - opinions.mean(0)) / opinions.std(0)


def test_weights_are_those_of_ridge_regression_where_all_are_positive():
    scores, opinions = sample(50, 0.5, 0.7)
    stack = stacked(["a", "b"], opinions, scores, {"a": 0.5, "b": 0.5}, 0)
    gram = opinions.T @ opinions + 8.0 * np.eye(2)
    expected = np.linalg.solve(gram, opinions.T @ scores + 8.0 * np.array([0.5, 0.5]))
    assert (expected > 0).all()
    np.testing.assert_allclose(list(stack.weights.values()), expected, rtol=1e-10)
    np.testing.assert_allclose(stack(opinions), opinions @ expected, rtol=1e-10)


def test_a_sample_that_leans_to_one_side_is_weighed_as_one_that_does_not():
    """Half of a sample is chosen for being good: what all its opinions share says nothing."""
    scores, opinions = sample(40, 0.5, 0.7)
    prior = {"a": 0.5, "b": 0.5}
    stack = stacked(["a", "b"], opinions, scores, prior, 0)
    shifted = opinions + np.array([3.0, 1.0])
    leaning = stacked(["a", "b"], shifted, scores + 2.0, prior, 0)
    for name in prior:
        assert leaning.weights[name] == pytest.approx(stack.weights[name])
    assert (leaning.tau, leaning.error) == pytest.approx((stack.tau, stack.error))
    np.testing.assert_allclose(leaning(shifted), stack(opinions), rtol=1e-9)


def test_an_opinion_against_the_truth_gets_no_weight():
    scores, opinions = sample(60, 0.3, 0.4)
    opinions[:, 1] *= -1
    stack = stacked(["good", "bad"], opinions, scores, {"good": 0.5, "bad": 0.5}, 0)
    assert stack.weights["bad"] == 0.0
    assert stack.single == "good"


def test_two_with_errors_of_their_own_are_better_than_either():
    scores, opinions = sample(200, 0.8, 0.8)
    stack = stacked(["a", "b"], opinions, scores, {"a": 0.5, "b": 0.5}, 0)
    alone = [kendalltau(column, scores).statistic for column in opinions.T]
    assert kendalltau(stack(opinions), scores).statistic > max(alone)
    assert stack.tau > stack.single_tau


@pytest.mark.parametrize("truths", [True, False])
def test_where_one_alone_does_better_it_is_taken_alone(truths):
    # The prior insists on noise; with eight examples it would win over the exact opinion.
    rng = derive(1, "noise")
    scores = np.sort(rng.normal(size=8))
    noise = rng.normal(size=(8, 3))
    opinions = np.column_stack([0.01 * scores, noise])
    names, prior = ["exact", "x", "y", "z"], {"x": 0.5, "y": 0.5}
    stack = stacked(names, opinions, scores, prior, 0, truths=truths)
    assert stack.weights == {"exact": 1.0, "x": 0.0, "y": 0.0, "z": 0.0}
    assert stack.single_tau == pytest.approx(1.0)


def test_one_that_only_seems_better_on_a_few_examples_is_not_taken_alone():
    # Of many equally good opinions the best of twenty examples is so by luck.
    taken = 0
    for seed in range(20):
        scores, opinions = sample(20, *[0.8] * 8, seed=seed)
        names = [f"o{i}" for i in range(8)]
        stack = stacked(names, opinions, scores, {"o0": 0.5, "o1": 0.5}, 0)
        taken += 1.0 in stack.weights.values()
    assert taken <= 1


def test_the_error_is_the_one_on_new_examples():
    scores, opinions = sample(300, 0.5, 0.5, seed=3)
    stack = stacked(["a", "b"], opinions[:150], scores[:150], {"a": 0.5, "b": 0.5}, 0)
    new = np.sqrt(np.mean(np.square(scores[150:] - stack(opinions[150:]))))
    assert stack.error == pytest.approx(new, rel=0.15)


def test_an_opinion_that_never_varies_says_nothing():
    scores, opinions = sample(30, 0.5)
    stack = stacked(
        ["a", "flat"], np.column_stack([opinions, np.zeros(30)]), scores, {"a": 0.5, "flat": 0.5}, 0
    )
    assert 0.0 < stack.tau <= 1.0
    assert stack.single == "a"


def test_what_the_prior_does_not_name_is_not_weighed():
    scores, opinions = sample(60, 0.4, 0.4, 0.4)
    stack = stacked(["a", "b", "c"], opinions, scores, {"a": 0.5, "b": 0.5}, 0)
    assert stack.weights["c"] == 0.0
    assert min(stack.weights["a"], stack.weights["b"]) > 0.1


def test_where_scores_are_estimates_the_prior_counts_twice_the_examples():
    scores, opinions = sample(50, 0.5, 0.7)
    stack = stacked(["a", "b"], opinions, scores, {"a": 0.5, "b": 0.5}, 0, truths=False)
    gram = opinions.T @ opinions + 100.0 * np.eye(2)
    expected = np.linalg.solve(gram, opinions.T @ scores + 100.0 * np.array([0.5, 0.5]))
    np.testing.assert_allclose(list(stack.weights.values()), expected, rtol=1e-10)
