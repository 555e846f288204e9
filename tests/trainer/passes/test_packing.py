"""Packed rows with a kernel of FlashAttention's interface on the CPU, against rows that are not packed."""

import pytest
import torch
from peft import LoraConfig

import varlen_attention
from gbpo.trainer.passes.unpadded import packed
from rollouts import random_rollout, token_sum

KERNEL = varlen_attention.NAME


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    varlen_attention.install(monkeypatch)


@pytest.fixture
def two_steps(make_trainer):
    """`two_steps(attention, **config)` → the trainer after two steps, their losses, and the update of its weights.

    The ratio is 1 in the first step and differs from 1 in the second. The loss has a KL term and an entropy bonus.
    """

    def run(attention, dtype="float32", peft_config=None, **config):
        trainer = make_trainer(
            reward_funcs=token_sum,
            trainer={"rollout_func": random_rollout(1, 3, 4, 5, 6, 7), "peft_config": peft_config},
            model_init_kwargs={"dtype": dtype, "attn_implementation": attention},
            optim="sgd",
            learning_rate=0.3,
            lr_scheduler_type="constant",
            target_baseline="exact",  # the median's kink turns rounding into another gradient
            beta=0.1,
            entropy_coef=0.01,
            max_steps=2,
            **config,
        )
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        torch.manual_seed(1)
        if peft_config:  # one matrix of an adapter starts at 0, so the other has no gradient
            for p in weights:
                torch.nn.init.normal_(p, std=0.02)
        before = torch.cat([p.detach().flatten().clone() for p in weights])
        trainer.train()
        update = torch.cat([p.detach().flatten() for p in weights]) - before
        return trainer, [row["loss"] for row in trainer.state.log_history if "loss" in row], update

    return run


def error(update, exact):
    return ((update - exact).norm() / exact.norm()).item()


LORA = {"peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")}


@pytest.mark.sweep
@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "LoRA"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_packed_rows_train_as_rows_that_are_not_packed(two_steps, without, lora, checkpointing):
    """Losses agree to 1e-6 and updates to 1e-5 in float32, with sdpa and with the same kernel without packing."""
    config = {"activation_checkpointing": checkpointing, **lora}
    trainer, losses, update = two_steps(KERNEL, **config)
    assert "pack_rows" in trainer.speedups
    rows = [len(call["borders"]) - 1 for call in varlen_attention.calls]
    assert max(rows) > 4, "several rows share a call"
    for attention, options in ((KERNEL, without("pack_rows")), ("sdpa", without("share_prompts"))):
        other, expected, exact = two_steps(attention, **config, **options)
        assert "pack_rows" not in other.speedups
        assert losses == pytest.approx(expected, abs=1e-6) and len(losses) == 2
        assert exact.norm() > 1e-3 and error(update, exact) < 1e-5


@pytest.mark.sweep
@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "LoRA"])
def test_packed_rows_in_bfloat16_are_as_exact_as_rows_that_are_not_packed(two_steps, without, lora):
    """Measured against float32, packing adds no error to that of bfloat16."""
    exact = two_steps("sdpa", **without("share_prompts"), **lora)[2]
    plain = error(two_steps(KERNEL, bf16=True, **without("pack_rows"), **lora)[2], exact)
    packed_error = error(two_steps(KERNEL, bf16=True, **lora)[2], exact)
    assert 1e-4 < plain < 0.1
    assert packed_error < 1.5 * plain


def test_fewer_shapes_do_not_change_the_training(two_steps, monkeypatch):
    """A row of padding rounds up the number of tokens. This depends on the device, so it is set here."""
    from gbpo.trainer.base import BaseTrainer

    monkeypatch.setattr(BaseTrainer, "_needs_few_shapes", False)
    _, losses, update = two_steps(KERNEL)
    borders = {call["borders"][-1].item() for call in varlen_attention.calls}
    varlen_attention.calls.clear()
    monkeypatch.setattr(BaseTrainer, "_needs_few_shapes", True)
    trainer, few_losses, few_update = two_steps(KERNEL)
    few = {call["borders"][-1].item() for call in varlen_attention.calls}
    assert few != borders and all(count <= 32 or count % 2 == 0 for count in few)
    assert few_losses == pytest.approx(losses, abs=1e-6) and error(few_update, update) < 1e-5
    shapes = [row["gbpo/pass_shapes"] for row in trainer.state.log_history if "gbpo/pass_shapes" in row]
    assert shapes[-1] == len(trainer.scorer.shapes) == len({(1, count) for count in few})


def test_a_row_attends_to_no_other_row(two_steps):
    """A change of one row's tokens changes the log-probs of this row only."""
    trainer, _, _ = two_steps(KERNEL)
    (one,) = [one for some in trainer._buffered_inputs[:1] for one in some][:1]
    ids = torch.cat([one.prompt_ids, one.completion_ids], 1)
    with torch.no_grad():
        before, _ = trainer.scorer.score(trainer.model, ids, one.prompt_ids.size(1), one.rows, entropy=False)
        changed = ids.clone()
        first = one.prompt_ids.size(1)
        changed[1, first] = (changed[1, first] + 1) % 90 + 5
        after, _ = trainer.scorer.score(trainer.model, changed, first, one.rows, entropy=False)
    differs = (before != after).any(1)
    assert len(one.rows) > 2 and differs.tolist() == [row == 1 for row in range(len(one.rows))]


@pytest.mark.parametrize("few_shapes", [False, True])
def test_borders_are_those_of_the_rows(few_shapes):
    """Three rows of 2 + 20, 1 + 40 and 3 + 1 tokens: 67 tokens, which is rounded up to 68."""
    from fakes import pass_of

    one = pass_of([[5, 6], [7], [8, 9, 10]], [[1] * 20, [2] * 40, [3]], [1.0, 1.0, 1.0])
    ids = torch.cat([one.prompt_ids, one.completion_ids], 1)
    inputs = packed(ids, one.prompt_ids.size(1), one.rows, few_shapes=few_shapes)
    tokens = inputs.tokens
    borders = [0, 22, 63, 67] + [68] * few_shapes
    assert tokens["cu_seq_lens_q"].tolist() == tokens["cu_seq_lens_k"].tolist() == borders
    assert tokens["cu_seq_lens_q"].dtype == torch.int32
    assert tokens["max_length_q"] == tokens["max_length_k"] == (42 if few_shapes else 41)
    assert type(tokens["max_length_q"]) is int
    assert tokens["input_ids"].shape == (1, borders[-1])
    assert tokens["input_ids"][0, :67].tolist() == [5, 6] + [1] * 20 + [7] + [2] * 40 + [8, 9, 10, 3]
    assert tokens["position_ids"][0].tolist() == [*range(22), *range(41), *range(4)] + [0] * few_shapes
    assert (tokens["labels"] != -100).sum() == 61
    values = torch.arange(float(borders[-1] - 1))  # the log-prob of each token from the second on
    placed = inputs.placed(values)
    assert placed[0, :20].tolist() == list(range(1, 21))
    assert placed[1, :40].tolist() == list(range(22, 62)) and placed[2, 0] == 65
    assert not placed[0, 20:].any() and not placed[2, 1:].any()
