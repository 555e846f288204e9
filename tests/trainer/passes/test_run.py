"""The scorer with a fake model whose log-prob of a token is minus its id, so that each score shows its token."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma3TextConfig, GPT2Config, Qwen2Config

from fakes import batch_of
from gbpo.trainer.passes.batch import rows_of
from gbpo.trainer.passes.run import Scorer

PROMPTS = [[11, 12, 13], [14], [15, 16], [17, 18, 19]]
COMPLETIONS = [[21], [22, 23, 24], [], [25, 26]]
EXPECTED = torch.tensor([[-21, 0, 0, 0], [-22, -23, -24, 0], [0, 0, 0, 0], [-25, -26, 0, 0]]).float()


class FakeModel:
    """Has scores where there are labels, at index i - 1 for token i, like the fused LM head of transformers.

    Records the shape and the arguments of each call.
    """

    is_activation_checkpointing = False

    def __init__(self):
        self.calls = []

    def __call__(self, input_ids, labels, **inputs):
        self.calls.append({"shape": tuple(input_ids.shape), **inputs})
        assert inputs.pop("fused_lm_head")
        assert ((labels == input_ids) | (labels == -100)).all()
        log_probs = torch.where(labels == -100, torch.nan, -labels.float())[:, 1:]
        return SimpleNamespace(log_probs=log_probs, entropy=-2 * log_probs)


@pytest.fixture
def accelerator():
    return SimpleNamespace(unwrap_model=lambda model: model, autocast=nullcontext)


@pytest.fixture
def batch():
    """Token ids, mask and rows of 4 rows with 3 prompt and 4 completion columns."""
    batch = batch_of(PROMPTS, COMPLETIONS, [1.0] * 4, width=4)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    return ids, mask, rows_of(batch)


# layout, fields of the scorer, shape of the forward pass
LAYOUTS = {
    "from the first token": ({"relative_positions": True, "causal": True}, (4, 5)),  # 3 + 2 tokens
    "absolute positions": ({}, (4, 6)),  # 3 columns of prompts, 3 tokens of completions
    "a multiple": ({"relative_positions": True, "causal": True, "multiple": 4}, (4, 8)),
    "packed": ({"relative_positions": True, "causal": True, "pack": True}, (1, 9 + 6)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_score_belongs_to_its_token(accelerator, batch, layout):
    fields, shape = LAYOUTS[layout]
    ids, _, rows = batch
    model = FakeModel()
    logps, entropies = Scorer(accelerator, **fields).score(model, ids, 3, rows, entropy=True)
    assert torch.equal(logps, EXPECTED) and torch.equal(entropies, -2 * EXPECTED)
    assert [call["shape"] for call in model.calls] == [shape]


def test_entropies_only_on_request(accelerator, batch):
    ids, _, rows = batch
    assert Scorer(accelerator).score(FakeModel(), ids, 3, rows, entropy=False)[1] is None


def test_the_mask_of_absolute_positions_covers_the_tokens(accelerator, batch):
    ids, mask, rows = batch
    model = FakeModel()
    Scorer(accelerator).score(model, ids, 3, rows, entropy=False)
    assert torch.equal(model.calls[0]["attention_mask"], mask[:, :6])


def test_causal_rows_that_begin_at_their_first_token_need_no_mask(accelerator, batch):
    ids, _, rows = batch
    for fields, masked in (({"causal": True}, False), ({}, True)):
        model = FakeModel()
        Scorer(accelerator, relative_positions=True, **fields).score(model, ids, 3, rows, entropy=False)
        assert ("attention_mask" in model.calls[0]) == masked


def test_packed_rows_start_at_position_0(accelerator, batch):
    ids, _, rows = batch
    model = FakeModel()
    Scorer(accelerator, pack=True).score(model, ids, 3, rows, entropy=False)
    (call,) = model.calls
    assert call["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4]]
    assert call["cu_seq_lens_q"].tolist() == call["cu_seq_lens_k"].tolist() == [0, 4, 8, 10, 15]
    assert call["max_length_q"] == call["max_length_k"] == 5


def test_batches_hold_rows_of_similar_length_and_keep_the_order(accelerator, batch):
    """4, 4, 2 and 5 tokens: rows 3 and 0 share a pass of width 5, rows 1 and 2 one of width 4."""
    ids, mask, _ = batch
    model = FakeModel()
    scorer = Scorer(accelerator, relative_positions=True, causal=True)
    logps, entropies = scorer.score_in_batches(model, ids, mask, 4, 2, entropy=True)
    assert torch.equal(logps, EXPECTED) and torch.equal(entropies, -2 * EXPECTED)
    assert [call["shape"] for call in model.calls] == [(2, 5), (2, 4)]


def change(mask, row, column, value):
    changed = mask.clone()
    changed[row, column] = value
    return changed


def test_rows_without_a_prompt_or_with_a_gap_are_not_scored(accelerator, batch):
    ids, mask, _ = batch
    scorer = Scorer(accelerator)
    without_prompt, gap_in_prompt, gap_in_completion = (
        change(mask, 1, 2, 0),
        change(mask, 0, 1, 0),
        change(mask, 1, 4, 0),
    )
    for broken in (without_prompt, gap_in_prompt, gap_in_completion):
        assert scorer.score_in_batches(FakeModel(), ids, broken, 4, 4, entropy=False) is None


def test_the_scorer_of_a_model(accelerator):
    def of(config, **options):
        return Scorer.of(
            accelerator, config, **{"pack": False, "share": True, "multiple": None, "few_shapes": False} | options
        )

    qwen, bidirectional = Qwen2Config(), Gemma3TextConfig(use_bidirectional_attention=True)
    assert of(qwen) == Scorer(accelerator, share=True, relative_positions=True, causal=True)
    assert of(GPT2Config()) == Scorer(accelerator)
    assert of(bidirectional) == Scorer(accelerator, share=True, relative_positions=True)
    assert not of(qwen, pack=True).share and not of(qwen, multiple=8).share and not of(qwen, share=False).share
    assert of(qwen, multiple=8).multiple == 8


def test_checkpointed_models_do_not_share_prompts(accelerator):
    model = FakeModel()
    assert Scorer(accelerator, share=True).shares_in(model)
    model.is_activation_checkpointing = True
    assert not Scorer(accelerator, share=True).shares_in(model)
