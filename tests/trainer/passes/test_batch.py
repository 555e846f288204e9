"""`Pass`: built from a batch of TRL; rows selected, joined and made idle."""

import pytest
import torch

from fakes import batch_of, pass_of
from gbpo.trainer.passes.batch import Pass, Row, policy_mask, prefix_numbers, rows_of

PROMPTS = [[5, 7], [5, 8], [5, 7], [9, 5, 7]]
COMPLETIONS = [[1, 2, 3], [4], [1, 1], [2, 2, 2]]
ADVANTAGES = [1.0, -1.0, 0.0, 0.5]
# A tool wrote the second token of row 0 and all tokens of row 3.
TOOL_MASK = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])


@pytest.fixture
def batch():
    batch = batch_of(PROMPTS, COMPLETIONS, ADVANTAGES, tool_mask=TOOL_MASK)
    return {**batch, "rows": rows_of(batch)}


def test_rows_of_a_batch(batch):
    """Rows 0 to 2 share the prefix [5]. Row 2 has advantage 0; no token of row 3 was sampled."""
    assert rows_of(batch) == [Row(2, 3, True, 0), Row(2, 1, True, 0), Row(2, 2, False, 0), Row(3, 3, False, 1)]


def test_the_prefix_is_the_prompt_without_its_last_token():
    assert prefix_numbers([[5, 7], [5, 8], [6, 7]], [2, 2, 2]) == [0, 0, 1]


def test_padding_is_not_part_of_a_prefix():
    """The first two prompts are padded; the ids under the padding differ. The third begins with a real token 0."""
    assert prefix_numbers([[0, 5, 7], [4, 5, 7], [0, 5, 7]], [2, 2, 3]) == [0, 0, 1]


def test_prompts_of_one_token_have_the_empty_prefix():
    assert len(set(prefix_numbers([[0, 5], [0, 6]], [1, 1]))) == 1


def test_the_policy_mask_leaves_out_tokens_of_tools(batch):
    assert policy_mask(batch).tolist() == [[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
    del batch["tool_mask"]
    assert policy_mask(batch).tolist() == batch["completion_mask"].tolist()


def test_from_batch_takes_every_entry(batch):
    values = torch.arange(12.0).view(4, 3)
    batch |= {
        "target_ratio": torch.tensor([1.2, 0.8, 1.0, 1.2]),
        "centred_advantages": torch.tensor([1.0, -1.0, 0.0, 0.5]),
        "old_per_token_logps": values,
        "ref_per_token_logps": values + 1,
        "sampling_per_token_logps": values + 2,
        "importance_sampling_ratio": values + 3,
        "pixel_values": torch.ones(4, 3, 2, 2),
    }
    one = Pass.from_batch(batch, torch.full((4,), 0.25), torch.full((4,), 0.5))
    entries = {
        "prompt_ids": "prompt_ids",
        "prompt_mask": "prompt_mask",
        "completion_ids": "completion_ids",
        "completion_mask": "completion_mask",
        "advantages": "advantages",
        "target_ratio": "target_ratio",
        "centred_advantages": "centred_advantages",
        "old_logps": "old_per_token_logps",
        "ref_logps": "ref_per_token_logps",
        "sampling_logps": "sampling_per_token_logps",
    }
    for field, entry in entries.items():
        assert getattr(one, field) is batch[entry], field
    assert one.policy_mask.equal(policy_mask(batch))
    assert one.row_weights.tolist() == [0.25] * 4 and one.entropy_weights.tolist() == [0.5] * 4
    assert one.rows == tuple(batch["rows"]) and not one.idle
    assert one.images == {"pixel_values": batch["pixel_values"]}


def test_from_batch_without_optional_entries():
    one = Pass.from_batch(batch_of([[5]], [[1, 2]], [1.0]))
    assert one.old_logps is one.ref_logps is one.sampling_logps is None
    assert one.images == {} and one.rows == ()


def with_logps(one):
    rows, width = one.completion_ids.shape
    logps = torch.arange(float(rows * width)).view(rows, width)
    return Pass(**{**vars(one), "old_logps": logps})


def test_take_gives_the_rows_in_the_order_of_their_numbers():
    one = with_logps(pass_of(PROMPTS, COMPLETIONS, ADVANTAGES))
    taken = one.take([2, 1], 3)
    assert taken.rows == (one.rows[2], one.rows[1])
    assert taken.advantages.tolist() == [0.0, -1.0]
    assert taken.prompt_ids.tolist() == [[0, 5, 7], [0, 5, 8]]
    assert taken.completion_ids.tolist() == [[1, 1, 0], [4, 0, 0]]
    assert taken.old_logps.tolist() == [[6.0, 7.0, 8.0], [3.0, 4.0, 5.0]]


def test_take_cuts_completions_and_leaves_prompts():
    """Prompts are 3 columns wide, as completions are."""
    one = with_logps(pass_of(PROMPTS, COMPLETIONS, ADVANTAGES))
    taken = one.take([2, 1], 2)
    assert taken.prompt_ids.tolist() == [[0, 5, 7], [0, 5, 8]] and taken.prompt_mask.shape == (2, 3)
    assert taken.completion_ids.tolist() == [[1, 1], [4, 0]]
    assert taken.completion_mask.shape == taken.policy_mask.shape == (2, 2)
    assert taken.old_logps.tolist() == [[6.0, 7.0], [3.0, 4.0]]


def test_the_idle_pass_has_no_policy_tokens():
    one = pass_of(PROMPTS, COMPLETIONS, ADVANTAGES)
    assert one.shortest == 1  # 2 + 1 tokens
    idle = one.take([one.shortest], 1).as_idle()
    assert idle.idle and idle.rows == (one.rows[1],)
    assert idle.completion_ids.tolist() == [[4]] and idle.completion_mask.tolist() == [[1]]
    assert idle.policy_mask.tolist() == [[0]]
    assert one.policy_mask.any() and not one.idle


def test_joined_passes_have_the_rows_of_all():
    one = pass_of(PROMPTS, COMPLETIONS, ADVANTAGES)
    parts = [one.take([0, 1], 3), one.take([2, 3], 3)]
    whole = Pass.joined(parts)
    assert whole.rows == one.rows
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            assert getattr(whole, name).equal(value), name
    assert whole.old_logps is None


def test_to_moves_every_tensor():
    one = with_logps(pass_of(PROMPTS, COMPLETIONS, ADVANTAGES)).to(torch.device("meta"))
    assert {value.device.type for value in vars(one).values() if isinstance(value, torch.Tensor)} == {"meta"}
