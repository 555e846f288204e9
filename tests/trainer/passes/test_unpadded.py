"""Passes without padding have TRL's log-probs, entropies and gradients, with fewer tokens and no attention mask."""

import pytest
import torch
from peft import LoraConfig

PROMPT, COMPLETION = 6, 8  # columns
LENGTHS = [(6, 8), (1, 3), (3, 8), (5, 1)]  # tokens of prompts and completions


@pytest.fixture
def rows():
    """Token ids and attention mask, (4, PROMPT + COMPLETION)."""
    columns, lengths = torch.arange(PROMPT + COMPLETION), torch.tensor(LENGTHS)
    mask = ((columns >= PROMPT - lengths[:, :1]) & (columns < PROMPT + lengths[:, 1:])).long()
    return torch.randint(6, 100, mask.shape, generator=torch.Generator().manual_seed(0)), mask


@pytest.fixture
def scored(rows):
    """`scored(trainer)` → log-probs and entropies, the gradient of a random sum of both, and the model's inputs."""

    def score(trainer, ids=rows[0], mask=rows[1]):
        calls = []
        hook = trainer.model.register_forward_pre_hook(
            lambda model, args, kwargs: calls.append(kwargs), with_kwargs=True
        )
        trainer.model.zero_grad()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, COMPLETION, compute_entropy=True
        )
        hook.remove()
        inside = mask[:, -COMPLETION:]
        assert not logps[inside == 0].any() and not entropies[inside == 0].any()
        weights = torch.randn(2, *logps.shape, generator=torch.Generator().manual_seed(1))
        ((weights[0] * logps + weights[1] * entropies) * inside).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        values = torch.stack([logps, entropies]).detach()
        return values[:, inside.bool()], gradient, calls

    return score


CASES = ["qwen", "eager attention", "LoRA", "checkpointing", "gemma", "gpt_oss", "mixtral", "qwen3_next", "falcon_h1"]


@pytest.mark.parametrize("case", CASES)
def test_padding_on_the_right_needs_no_mask(make_trainer, save_model, scored, distance, case):
    options = {
        "qwen": {},
        "eager attention": {"model_init_kwargs": {"attn_implementation": "eager"}},
        "LoRA": {"trainer": {"peft_config": LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)}},
        "checkpointing": {"activation_checkpointing": True},
    }
    trainer = make_trainer(**options[case] if case in options else {"model": save_model(case)})
    if case == "checkpointing":
        trainer.model.train()
        trainer.model.activation_checkpointing_enable()
    *ours, given = scored(trainer)
    trainer.scorer = None
    *trl, padded = scored(trainer)
    assert [call["input_ids"].shape for call in given] == [(4, max(map(sum, LENGTHS)))]
    assert "attention_mask" not in given[0] and "attention_mask" in padded[0]
    for one, other in zip(ours, trl, strict=True):
        assert one.norm() > 1e-3 and distance(one, other) < 2e-6


def test_a_row_with_a_gap_is_run_by_trl(make_trainer, rows, scored, distance):
    trainer = make_trainer()
    ids, mask = rows
    gap = mask.clone()
    gap[0, 3] = 0
    *whole, _ = scored(trainer)
    *ours, given = scored(trainer, ids, gap)
    assert given[0]["input_ids"].shape == ids.shape and "attention_mask" in given[0]
    trainer.scorer = None
    *trl, _ = scored(trainer, ids, gap)
    assert torch.equal(ours[1], trl[1]) and distance(whole[1], trl[1]) > 1e-3


def test_bidirectional_attention_needs_a_mask(make_trainer, scored, monkeypatch):
    monkeypatch.setattr("gbpo.trainer.passes.run.attends_backwards_only", lambda config: False)
    *_, given = scored(make_trainer())
    assert "attention_mask" in given[0]


def test_absolute_positions_keep_the_padding_of_prompts_and_the_mask(make_trainer, save_model, rows, scored, distance):
    trainer = make_trainer(model=save_model("gpt2"))
    *ours, given = scored(trainer)
    scorer, trainer.scorer = trainer.scorer, None
    *trl, _ = scored(trainer)
    assert given[0]["input_ids"].shape == given[0]["attention_mask"].shape == (4, PROMPT + COMPLETION)
    for one, other in zip(ours, trl, strict=True):
        assert distance(one, other) < 2e-6
    trainer.scorer = scorer
    ids, mask = rows
    *_, given = scored(trainer, ids, mask.index_fill(1, torch.arange(PROMPT), 1))
    assert "attention_mask" in given[0]
