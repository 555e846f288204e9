"""Percentiles of the probability ratios and the fraction outside the bounds, for hand-set ratios."""

import math

import pytest
import torch

from fakes import FakeAccelerator
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.guards.ratio_metrics import ratio_metrics


def test_by_hand():
    """Of 0, 0.01, …, 1 the percentiles are 0.01, 0.5 and 0.99. 81 of 101 lie below 0.805, none above 1.2."""
    ratios = torch.arange(101) / 100
    found = ratio_metrics([ratios[:40], ratios[40:]], 0.195, 0.2, FakeAccelerator())
    assert found == pytest.approx(
        {
            "gbpo/outside_bounds": 81 / 101,
            "gbpo/ratio_p01": 0.01,
            "gbpo/ratio_p50": 0.5,
            "gbpo/ratio_p99": 0.99,
        }
    )


def test_each_bound_counts():
    ratios = [torch.tensor([0.5, 0.75, 1.0, 1.35, 2.0])]
    assert ratio_metrics(ratios, 0.3, 0.3, FakeAccelerator())["gbpo/outside_bounds"] == pytest.approx(3 / 5)
    assert ratio_metrics(ratios, 0.2, 0.3, FakeAccelerator())["gbpo/outside_bounds"] == pytest.approx(4 / 5)
    assert ratio_metrics(ratios, 0.3, 0.4, FakeAccelerator())["gbpo/outside_bounds"] == pytest.approx(2 / 5)


def test_no_ratio_gives_no_metric():
    assert ratio_metrics([], 0.2, 0.2, FakeAccelerator()) == {}
    assert ratio_metrics([torch.empty(0)], 0.2, 0.2, FakeAccelerator()) == {}


def test_ranks_without_ratios_do_not_count():
    """A rank sends: ratios outside, three percentiles, the number of ratios, and 1. A rank without ratios sends 0."""
    accelerator = FakeAccelerator([[3.0, 0.6, 1.0, 1.4, 6.0, 1.0], [0.0] * 6])
    found = ratio_metrics([torch.tensor([2.0, 2.0])], 0.2, 0.2, accelerator)
    assert found["gbpo/outside_bounds"] == pytest.approx((2 + 3) / (2 + 6))
    assert found["gbpo/ratio_p50"] == pytest.approx((2.0 + 1.0) / 2)


def test_a_rank_without_ratios_gets_those_of_the_others():
    found = ratio_metrics([], 0.2, 0.2, FakeAccelerator([[3.0, 0.6, 1.0, 1.4, 6.0, 1.0]]))
    assert found["gbpo/outside_bounds"] == 0.5 and found["gbpo/ratio_p99"] == pytest.approx(1.4)


# --- in the losses

OPTIONAL = ("sampling_per_token_logps", "importance_sampling_ratio", "tool_mask")


@pytest.fixture(params=["gbpo", "grpo"])
def logged(request, make_trainer, make_batch, add_targets, gradient):
    """`logged(log_ratio, level)`: the metrics of one micro-batch of 8 rows of 6 tokens with these ratios."""

    def run(log_ratio, level="token", epsilon=0.2, **batch_fields):
        base = None if request.param == "gbpo" else BaseTrainer
        trainer = make_trainer(request.param, base=base, epsilon=epsilon, importance_sampling_level=level)
        batch = {key: value for key, value in make_batch(trainer).items() if key not in OPTIONAL}
        batch["completion_mask"] = torch.ones(8, 6, dtype=torch.long)
        batch = add_targets(trainer, batch) if request.param == "gbpo" else batch
        batch |= batch_fields
        batch["old_per_token_logps"] = current_logps(trainer, batch) - log_ratio
        gradient(trainer, batch)
        return {name.removeprefix("gbpo/"): values[-1] for name, values in trainer._metrics["train"].items()}

    return run


def current_logps(trainer, batch):
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 6)[0]


def test_ratios_of_tokens(logged):
    log_ratio = torch.zeros(8, 6)
    log_ratio[0] = math.log(1.3)  # 6 tokens above 1.2
    log_ratio[1, :3] = math.log(0.5)  # 3 below 0.8
    metrics = logged(log_ratio)
    assert metrics["outside_bounds"] == pytest.approx(9 / 48)
    assert metrics["ratio_p01"] == pytest.approx(0.5, rel=1e-4)  # position 0.47 of 0 … 47, between two ratios of 0.5
    assert metrics["ratio_p50"] == pytest.approx(1.0, rel=1e-4)
    assert metrics["ratio_p99"] == pytest.approx(1.3, rel=1e-4)


def test_padding_and_tool_tokens_do_not_count(logged):
    log_ratio = torch.zeros(8, 6)
    log_ratio[:, 4:] = math.log(3.0)
    mask = torch.ones(8, 6, dtype=torch.long)
    mask[:, 5:] = 0
    tools = torch.ones(8, 6, dtype=torch.long)
    tools[:, 4] = 0
    metrics = logged(log_ratio, completion_mask=mask, tool_mask=tools)
    assert metrics["outside_bounds"] == 0
    assert metrics["ratio_p99"] == pytest.approx(1.0, rel=1e-4)


def test_ratios_of_sequences(logged):
    log_ratio = torch.zeros(8, 6)
    log_ratio[0] = torch.tensor([math.log(1.3) * 6, 0, 0, 0, 0, 0])  # the geometric mean is 1.3
    log_ratio[1, 0] = math.log(1.3)  # 1.3^(1/6) = 1.04 is inside
    metrics = logged(log_ratio, level="sequence")
    assert metrics["outside_bounds"] == pytest.approx(1 / 8)
    second = 1.3 ** (1 / 6)
    assert metrics["ratio_p99"] == pytest.approx(second + 0.93 * (1.3 - second), rel=1e-4)  # position 6.93 of 0 … 7


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_step_without_policy_tokens_logs_no_ratio(logged, level):
    metrics = logged(torch.zeros(8, 6), level=level, tool_mask=torch.zeros(8, 6, dtype=torch.long))
    assert not [name for name in metrics if name.startswith(("ratio_", "outside_bounds"))]


def test_the_bounds_are_those_of_the_configuration(logged):
    log_ratio = torch.full((8, 6), math.log(1.3))
    assert logged(log_ratio, epsilon=0.29)["outside_bounds"] == 1
    assert logged(log_ratio, epsilon=0.31)["outside_bounds"] == 0
