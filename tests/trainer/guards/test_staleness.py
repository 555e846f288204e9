"""Ages and ratios of completions that were sampled ahead, by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from gbpo.trainer.guards.staleness import first_use_metrics, staleness_metrics

ALONE = SimpleNamespace(device=torch.device("cpu"), gather=lambda rows: rows)


def two_ranks(other):
    """An accelerator whose other rank sends `other`."""
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda row: torch.cat([row, torch.tensor([other])]))


def passes(*rows):
    return [(torch.tensor(versions), torch.tensor(counts)) for versions, counts in rows]


def test_ages_in_optimiser_steps():
    """At step 10 versions 4, 4, 7 and 10 are 6, 6, 3 and 0 steps old; the one of 7 does not count."""
    ran = passes(([4, 4], [True, True]), ([7, 10], [False, True]))
    assert staleness_metrics(ran, 10, None, ALONE) == {"gbpo/staleness/mean": 4.0, "gbpo/staleness/max": 6.0}


def test_older_completions_are_counted_as_dropped():
    """With a limit of 5 those of age 6 are dropped, and an age of 5 is not."""
    ran = passes(([4, 5, 10], [False, True, True]))
    assert staleness_metrics(ran, 10, 5, ALONE) == {
        "gbpo/dropped_stale": 1.0,
        "gbpo/staleness/mean": 2.5,
        "gbpo/staleness/max": 5.0,
    }


def test_ages_of_two_ranks():
    """Ages 2 and 4 here, and 3 completions with ages that sum to 30 there, at most 20."""
    found = staleness_metrics(passes(([8, 6], [True, True])), 10, 25, two_ranks([30.0, 3.0, 2.0, 20.0]))
    assert found == {"gbpo/dropped_stale": 2.0, "gbpo/staleness/mean": 36 / 5, "gbpo/staleness/max": 20.0}


def test_a_step_without_completions():
    assert staleness_metrics([], 10, None, ALONE) == {}
    assert first_use_metrics([], ALONE) == {}


def test_ratios_and_effective_sample_size():
    """Ratios 1, 2 and 0.5: the sample size is 3.5² / (3 · 5.25). Padding and an unknown token do not count."""
    policy = torch.tensor([[0.0, math.log(2), 9.0], [math.log(0.5), 9.0, 9.0]])
    sampler = torch.tensor([[0.0, 0.0, math.nan], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    found = first_use_metrics([(policy, sampler, mask)], ALONE)
    assert found == {
        "gbpo/ratio_at_first_use/min": pytest.approx(0.5),
        "gbpo/ratio_at_first_use/mean": pytest.approx(3.5 / 3),
        "gbpo/ratio_at_first_use/max": pytest.approx(2.0),
        "gbpo/effective_sample_size": pytest.approx(3.5**2 / (3 * 5.25)),
    }
