"""StepMetrics: weighted means, sums and extremes over the passes and ranks of a step, by hand."""

import math

import pytest
import torch

from fakes import FakeAccelerator
from gbpo.trainer.metrics import StepMetrics


@pytest.fixture
def metrics():
    return StepMetrics()


def test_a_mean_weighs_the_tokens_of_all_passes(metrics):
    """(1·1 + 2·1 + 3·2) / (1 + 1 + 2)"""
    metrics.add_mean("a", torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 1.0, 0.0]))
    metrics.add_mean("a", torch.tensor([3.0]), torch.tensor([2.0]))
    assert metrics.collect(FakeAccelerator()) == {"a": 9 / 4}


def test_values_and_weights_are_broadcast(metrics):
    """Values (2, 1), weights (2, 3): (1·3 + 5·1) / 4. Weights (2, 1), values (2, 3): (6·1 + 15·2) / (3 + 6)."""
    metrics.add_mean("a", torch.tensor([[1.0], [5.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]))
    metrics.add_mean("b", torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[1.0], [2.0]]))
    assert metrics.collect(FakeAccelerator()) == {"a": 2.0, "b": 4.0}


def test_weights_below_one(metrics):
    """With loss_type grpo the weights of a completion's tokens sum to 1: (3·0.25 + 6·0.25) / 0.5."""
    metrics.add_mean("a", torch.tensor([3.0, 6.0]), torch.tensor([0.25, 0.25]))
    assert metrics.collect(FakeAccelerator()) == {"a": 4.5}


def test_a_mean_without_weight_is_absent(metrics):
    metrics.add_mean("a", torch.tensor([1.0]), torch.tensor([0.0]))
    assert metrics.collect(FakeAccelerator()) == {}


def test_ranks_count_by_their_weight(metrics):
    """Here 2 tokens with sum 4, on the other ranks 6 with sum 0 and none: (4 + 0) / 8."""
    metrics.add_mean("a", torch.tensor([1.0, 3.0]), torch.ones(2))
    assert metrics.collect(FakeAccelerator([[0.0, 6.0], [0.0, 0.0]])) == {"a": 0.5}


def test_a_sum_is_over_passes_and_a_mean_over_ranks(metrics):
    """(1 + 2) here, 5 on the other rank: 8 / 2."""
    metrics.add_sum("loss", torch.tensor(1.0))
    metrics.add_sum("loss", torch.tensor(2.0))
    assert metrics.collect(FakeAccelerator([[5.0, 1.0]])) == {"loss": 4.0}


def test_extremes_over_passes_and_ranks(metrics):
    metrics.add_extreme("low", torch.tensor([0.5, math.nan]), "amin")
    metrics.add_extreme("low", torch.tensor([0.3, 0.9]), "amin")
    metrics.add_extreme("high", torch.tensor([0.5, math.nan]), "amax")
    metrics.add_extreme("high", torch.tensor([0.3, 0.9]), "amax")
    found = metrics.collect(FakeAccelerator([[0.4, 0.7], [math.inf, -math.inf]]))
    assert found == pytest.approx({"low": 0.3, "high": 0.9})


def test_extremes_of_other_ranks(metrics):
    metrics.add_extreme("low", torch.tensor([0.3]), "amin")
    metrics.add_extreme("high", torch.tensor([0.3]), "amax")
    assert metrics.collect(FakeAccelerator([[0.1, 0.7]])) == pytest.approx({"low": 0.1, "high": 0.7})


def test_an_extreme_of_no_value_is_absent(metrics):
    metrics.add_extreme("low", torch.tensor([math.nan]), "amin")
    metrics.add_extreme("high", torch.tensor([math.nan]), "amax")
    assert metrics.collect(FakeAccelerator()) == {}


def test_collecting_clears(metrics):
    metrics.add_mean("a", torch.tensor([1.0]), torch.ones(1))
    metrics.add_sum("b", torch.tensor(1.0))
    metrics.add_extreme("c", torch.tensor([1.0]), "amin")
    assert metrics.collect(FakeAccelerator()).keys() == {"a", "b", "c"}
    assert metrics.collect(FakeAccelerator()) == {}
