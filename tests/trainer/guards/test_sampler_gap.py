"""Metrics of the difference between vLLM's policy and the trainer's; test_anchor.py compares them with a formula."""

import math

import pytest
import torch
from accelerate import Accelerator

from gbpo.trainer.guards.sampler_gap import sampler_gap_metrics
from gbpo.trainer.passes.anchor import Anchor

MODES = ["token_mask", "token_truncate", "sequence_mask", "sequence_truncate"]


@pytest.mark.parametrize("mode", MODES)
def test_only_tokens_that_the_policy_sampled_count(mode):
    """Four rows: both tokens inside; one outside; the same token written by a tool; all tokens written by a tool."""
    trainer = torch.tensor([[0.1, 0.1], [1.0, 0.1], [1.0, 0.1], [9.0, 9.0]])
    sampler = torch.tensor([[0.0, math.nan], [0.0, math.nan], [0.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 0]])
    found = sampler_gap_metrics([(trainer, sampler, mask)], Anchor(mode=mode, high=2.0), Accelerator(cpu=True))
    done = "masked" if mode.endswith("mask") else "truncated"
    assert found[f"gbpo/vllm_{done}_fraction"] == pytest.approx(1 / 5 if mode.startswith("token") else 1 / 3)
    assert found["sampling/sampling_logp_difference/mean"] == pytest.approx((0.1 + 1.0 + 0.1) / 3)
    assert found["sampling/sampling_logp_difference/max"] == pytest.approx(1.0)


def test_passes_count_by_their_tokens():
    one = (torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
    three = (torch.zeros(1, 3), torch.full((1, 3), 2.0), torch.ones(1, 3))
    found = sampler_gap_metrics([one, three], Anchor(), Accelerator(cpu=True))
    assert found == {
        "sampling/sampling_logp_difference/mean": pytest.approx(7 / 4),
        "sampling/sampling_logp_difference/max": pytest.approx(2.0),
    }


@pytest.mark.parametrize("scores", [[], [(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))]], ids=len)
def test_without_tokens_nothing_is_logged(scores):
    assert sampler_gap_metrics(scores, Anchor(mode="token_mask"), Accelerator(cpu=True)) == {}
