"""From micro-batches to passes, with hand-made rows and a fake accelerator."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from accelerate.utils import DistributedType

from fakes import FakeAccelerator, pass_of
from gbpo.trainer.passes.plan import PassPlan


@pytest.fixture
def plan():
    """`plan(**fields)`: a plan for one process that arranges, skips and trims, with windows of two micro-batches."""

    def make(accelerator=None, **fields):
        defaults = {"window": 2, "budget": None, "micro_batch_size": 2}
        defaults |= {"arrange": True, "skip": True, "trim": True, "pack": False}
        return PassPlan(accelerator or FakeAccelerator(), **defaults | fields)

    return make


def micro_batch(*lengths, advantages=None):
    """Rows with a prompt of one token and completions of these lengths; `advantages` are the lengths by default."""
    advantages = [float(length) for length in lengths] if advantages is None else advantages
    return pass_of([[5]] * len(lengths), [[7] * length for length in lengths], advantages, width=8)


def flat(lists):
    return list(chain(*lists))


def run(plan, *micro_batches, shares_prompts=False):
    """The lengths of the completions of each pass, by micro-batch, and the fraction of rows that are run."""
    passes, rows_run = plan.passes(micro_batches, shares_prompts=shares_prompts)
    lengths = [[[row.completion for row in one.rows] for one in some] for some in passes]
    return lengths, rows_run


def test_rows_of_similar_length_share_a_pass(plan):
    """The micro-batches [1, 8] and [8, 1] have 4 · 9 tokens with padding; [8, 8] and [1, 1] have 2 · 9 + 2 · 2."""
    assert run(plan(), micro_batch(1, 8), micro_batch(8, 1)) == ([[[8, 8]], [[1, 1]]], 1.0)


def test_a_pass_is_as_wide_as_its_longest_completion(plan):
    passes, _ = plan().passes([micro_batch(1, 8), micro_batch(8, 2)], shares_prompts=False)
    assert [some[0].completion_ids.size(1) for some in passes] == [8, 2]
    passes, _ = plan(trim=False).passes([micro_batch(1, 8), micro_batch(8, 2)], shares_prompts=False)
    assert [some[0].completion_ids.size(1) for some in passes] == [8, 8]


def test_an_empty_completion_keeps_one_column(plan):
    """mask_truncated_completions removes all tokens of a completion."""
    passes, _ = plan(skip=False).passes([micro_batch(0, 0), micro_batch(5, 5)], shares_prompts=False)
    assert sorted(one.completion_ids.size(1) for some in passes for one in some) == [1, 5]


def test_with_few_shapes_widths_are_rounded_up_within_the_generation(plan):
    """33 and 34 columns become 34; 67 would become 68, but the generation has 67 columns."""
    lengths = [33, 34, 67, 67]
    rows = [pass_of([[5]] * 2, [[7] * length] * 2, [1.0, -1.0], width=67) for length in lengths]
    passes, _ = plan(few_shapes=True, window=1).passes(rows, shares_prompts=False)
    assert [one.completion_ids.size(1) for some in passes for one in some] == [34, 34, 67, 67]


def test_rows_stay_in_their_window(plan):
    """Micro-batches 0 and 1 are one optimiser step, 2 and 3 the next."""
    lengths, _ = run(plan(), micro_batch(1, 8), micro_batch(8, 1), micro_batch(2, 6), micro_batch(6, 2))
    assert lengths == [[[8, 8]], [[1, 1]], [[6, 6]], [[2, 2]]]


def test_a_window_of_one_micro_batch(plan):
    lengths, _ = run(plan(window=1), micro_batch(1, 8), micro_batch(8, 1))
    assert [sorted(flat(some)) for some in lengths] == [[1, 8], [1, 8]]


def test_rows_without_signal_are_not_run(plan):
    batches = micro_batch(1, 8, advantages=[0.0, 1.0]), micro_batch(8, 1, advantages=[0.0, 0.0])
    lengths, rows_run = run(plan(), *batches)
    assert flat(lengths) == [[8]] and rows_run == 1 / 4
    lengths, rows_run = run(plan(skip=False), *batches)
    assert lengths == [[[8, 8]], [[1, 1]]] and rows_run == 1


def test_without_arranging_each_micro_batch_is_one_pass(plan):
    lengths, rows_run = run(plan(arrange=False), micro_batch(1, 8, advantages=[0.0, 1.0]), micro_batch(8, 1))
    assert lengths == [[[8]], [[8, 1]]] and rows_run == 3 / 4


def test_a_window_without_signal_runs_one_idle_row(plan):
    """Without a pass the gradients would be None, and the optimiser would skip its moments."""
    silent = micro_batch(3, 8, advantages=[0.0, 0.0])
    passes, rows_run = plan().passes([silent, silent], shares_prompts=False)
    (idle,) = flat(passes)
    assert idle.idle and [row.completion for row in idle.rows] == [3] and rows_run == 0


def test_a_rank_with_fewer_rows_runs_as_many_passes(plan):
    """The other rank has 3 passes for the window and runs 4 of 4 rows. One of the two passes here is halved."""
    accelerator = FakeAccelerator([[3, 4, 4]])
    lengths, rows_run = run(plan(accelerator), micro_batch(1, 8), micro_batch(8, 1))
    assert sorted(flat(lengths)) == [[1, 1], [8], [8]] and rows_run == 1


def test_idle_passes_fill_up_where_no_pass_can_be_halved(plan):
    """The other rank has 3 passes and runs 4 of 4 rows. Here 1 of 4 rows has a signal."""
    accelerator = FakeAccelerator([[3, 4, 4]])
    batches = [micro_batch(1, 8, advantages=[0.0, 1.0]), micro_batch(8, 1, advantages=[0.0, 0.0])]
    passes, rows_run = plan(accelerator).passes(batches, shares_prompts=False)
    assert [one.idle for some in passes for one in some] == [False, True, True] and rows_run == 5 / 8


def test_passes_are_spread_over_the_micro_batches_of_the_window(plan):
    """Of 3 passes, the first micro-batch gets 1 and the second 2."""
    accelerator = FakeAccelerator([[3, 4, 4]])
    lengths, _ = run(plan(accelerator), micro_batch(1, 8), micro_batch(8, 1))
    assert [len(some) for some in lengths] == [1, 2]


def test_with_deepspeed_every_micro_batch_has_a_pass(plan):
    """DeepSpeed counts the backward passes of a step."""
    batches = [micro_batch(4, 4), micro_batch(4, 4, advantages=[0.0, 0.0])]
    accelerator = FakeAccelerator(distributed_type=DistributedType.DEEPSPEED)
    lengths, _ = run(plan(accelerator), *batches)
    assert [len(some) for some in lengths] == [1, 1]
    lengths, _ = run(plan(), *batches)
    assert [len(some) for some in lengths] == [0, 1]


def test_the_budget_limits_the_tokens_of_a_pass(plan):
    """Each row has 1 + 4 tokens: two rows in 10 tokens, one in 9."""
    batches = [micro_batch(4, 4), micro_batch(4, 4)]
    assert [len(one) for one in flat(run(plan(budget=10), *batches)[0])] == [2, 2]
    assert [len(one) for one in flat(run(plan(budget=9), *batches)[0])] == [1, 1, 1, 1]
    assert [len(one) for one in flat(run(plan(budget=20), *batches)[0])] == [4]


def test_the_default_budget_is_that_of_a_micro_batch(plan):
    """2 rows of 1 + 8 columns are 18 tokens: three rows of 1 + 5 tokens fit, four do not."""
    three = [micro_batch(5, 5), micro_batch(5, 5, advantages=[1.0, 0.0])]
    assert [len(one) for one in flat(run(plan(), *three)[0])] == [3]
    assert len(flat(run(plan(), micro_batch(5, 5), micro_batch(5, 5))[0])) == 2


def test_rows_with_images_stay_in_their_micro_batch_and_those_without_signal_are_left_out(plan):
    """The first row has one image, the second has two. Completions keep all 8 columns, as TRL's forward pass needs."""
    images = {"pixel_values": torch.arange(3.0).view(3, 1), "num_images": [1, 2]}
    first, second = (
        replace(micro_batch(*lengths, advantages=advantages), images=images)
        for lengths, advantages in (((1, 4), [1.0, 0.0]), ((8, 1), [0.0, 1.0]))
    )
    passes, rows_run = plan().passes([first, second], shares_prompts=False)
    assert [[[row.completion for row in one.rows] for one in some] for some in passes] == [[[1]], [[1]]]
    assert rows_run == 0.5 and all(one.completion_ids.size(1) == 8 for one in flat(passes))
    assert [one.images["num_images"] for one in flat(passes)] == [[1], [2]]
    assert [one.images["pixel_values"].flatten().tolist() for one in flat(passes)] == [[0.0], [1.0, 2.0]]


def test_without_both_speedups_every_micro_batch_is_unchanged(plan):
    batches = [micro_batch(1, 8), micro_batch(8, 1)]
    passes, rows_run = plan(arrange=False, skip=False).passes(batches, shares_prompts=False)
    assert passes == [[batches[0]], [batches[1]]] and rows_run is None


def test_rows_of_one_prompt_share_a_pass_if_prompts_are_shared(plan):
    """Two prompts of 12 tokens, each with completions of 1 and 2 tokens.

    By length, each pass would hold both prompts. By prompt, each runs 11 + 2 · (1 + 2) tokens.
    """
    prompts = [list(range(10, 22)), list(range(30, 42))]
    batches = [pass_of(prompts, [[7], [7]], [1.0, 1.0], width=8), pass_of(prompts, [[7] * 2] * 2, [1.0, 1.0], width=8)]

    def prefixes(shares_prompts):
        passes, _ = plan(budget=32).passes(batches, shares_prompts=shares_prompts)
        return [{row.prefix for row in one.rows} for one in flat(passes)]

    assert sorted(prefixes(True), key=min) == [{0}, {1}]
    assert prefixes(False) == [{0, 1}, {0, 1}]
