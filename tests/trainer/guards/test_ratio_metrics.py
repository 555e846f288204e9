"""Where the ratios lie is logged for both losses alike, by hand-set ratios of tokens and of sequences."""

import math

import pytest
import torch

from gbpo.trainer.base import BaseTrainer

OPTIONAL = ("sampling_per_token_logps", "importance_sampling_ratio", "tool_mask")


@pytest.fixture(params=["gbpo", "grpo"])
def logged(request, make_trainer, make_batch, add_targets, gradient):
    """`logged(log_ratio, level)` is what one micro-batch of 8 rows of 6 tokens logs at these ratios."""

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


def test_share_and_percentiles_over_tokens(logged):
    log_ratio = torch.zeros(8, 6)
    log_ratio[0] = math.log(1.3)  # 6 tokens above 1.2
    log_ratio[1, :3] = math.log(0.5)  # 3 below 0.8
    metrics = logged(log_ratio)
    assert metrics["outside_bounds"] == pytest.approx(9 / 48)
    assert metrics["ratio_p01"] == pytest.approx(0.5, rel=1e-4)  # rank 0.47 of 0 … 47: between the lowest two
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


def test_a_sequence_has_one_ratio(logged):
    log_ratio = torch.zeros(8, 6)
    log_ratio[0] = torch.tensor([math.log(1.3) * 6, 0, 0, 0, 0, 0])  # geometric mean 1.3
    log_ratio[1, 0] = math.log(1.3)  # 1.3^(1/6) = 1.04: inside
    metrics = logged(log_ratio, level="sequence")
    assert metrics["outside_bounds"] == pytest.approx(1 / 8)
    second = 1.3 ** (1 / 6)
    assert metrics["ratio_p99"] == pytest.approx(second + 0.93 * (1.3 - second), rel=1e-4)  # rank 6.93 of 0 … 7


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_step_in_which_no_token_counts_logs_no_ratio_clip_or_entropy(logged, level):
    """Rows of one token, so that a pass is one column wide; the policy wrote none of them."""
    nothing = torch.zeros(8, 6, dtype=torch.long)
    metrics = logged(torch.zeros(8, 6), level=level, tool_mask=nothing)
    ours = {name for name in metrics if name.startswith(("ratio_", "outside_bounds"))}
    assert not ours


def test_bounds_are_those_of_the_run(logged):
    log_ratio = torch.full((8, 6), math.log(1.3))
    assert logged(log_ratio, epsilon=0.29)["outside_bounds"] == 1
    assert logged(log_ratio, epsilon=0.31)["outside_bounds"] == 0
