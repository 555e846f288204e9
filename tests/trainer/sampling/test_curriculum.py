"""Which prompts `Curriculum` chooses, how it computes their solve rates, and what it keeps for a resumed run."""

import json
import math
import random
from copy import deepcopy

import pytest
import torch
from datasets import Dataset
from trl.trainer.utils import RepeatSampler

from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.config import Band
from gbpo.trainer.sampling.curriculum import Curriculum, solve_rates
from gbpo.trainer.sampling.delay_line import PromptOrder

NAN = math.nan


def prompts(size):
    return Dataset.from_dict({"prompt": [str(i) for i in range(size)]})


def make(size=12, count=3, low=0.1, high=0.9, revisit=0.0, shuffle=False, mine=None, dataset=None, seed=1):
    """A curriculum of `size` prompts in groups of 2; each generation has `count` prompts."""
    dataset = dataset or prompts(size)
    return Curriculum(
        dataset,
        RepeatSampler(dataset, 1, batch_size=count, shuffle=shuffle, seed=5),
        Band(low, high, revisit),
        count=count,
        group_size=2,
        mine=mine or slice(0, 2 * count),
        names=["graded", "penalty"],
        seed=seed,
    )


def begin(curriculum, number, rates=None):
    """The prompts of a generation. Then `rates[prompt]` of each becomes known: 0, 0.5 or 1 of its two completions."""
    rows = [int(row["prompt"]) for row in curriculum.begin(number)]
    assert rows[::2] == rows[1::2], "each prompt has two completions"
    if rates is not None:
        pairs = {0: [0.0, 0.0], 0.5: [0.0, 1.0], 1: [1.0, 1.0]}
        curriculum.record(torch.tensor([[value] for prompt in rows[::2] for value in pairs[rates[prompt]]]))
    return rows[::2]


# --- solve rates


def test_the_solve_rate_is_the_mean_of_the_first_reward_that_graded_the_prompt():
    rewards = torch.tensor(
        [
            *([1.0, -3.0], [0.0, -3.0]),  # 1/2: the second reward, a penalty, does not count
            *([1.0, 0.0], [NAN, 0.0]),  # 1/1: one completion was not graded
            *([NAN, 0.25], [NAN, 0.5]),  # (0.25 + 0.5) / 2: the first reward does not grade this prompt
            *([NAN, NAN], [NAN, NAN]),  # nothing is known
        ]
    )
    torch.testing.assert_close(
        solve_rates(rewards, 2, ["a", "b"]), torch.tensor([0.5, 1.0, 0.375, NAN]).double(), equal_nan=True
    )


@pytest.mark.parametrize("value", [-0.5, 1.5, 4.0])
def test_a_reward_outside_0_and_1_has_no_solve_rate(value):
    rewards = torch.tensor([[0.0, 9.0], [1.0, 9.0], [0.0, 0.0], [value, 0.0]])
    with pytest.raises(TrainingStopped, match=f"solve rate from the reward 'a', which is {value:g}.*first in"):
        solve_rates(rewards, 2, ["a", "b"])


def test_rounding_of_a_graded_reward_is_no_error():
    assert solve_rates(torch.tensor([[1.0000001], [1.0000001]]), 2, ["a"]).item() == 1


def test_the_newest_group_weighs_one_half():
    curriculum = make(size=3)
    begin(curriculum, 0, {0: 1, 1: 0.5, 2: 0})
    assert curriculum.rates.tolist() == [1.0, 0.5, 0.0]
    begin(curriculum, 1, {0: 0, 1: 0.5, 2: 1})
    assert curriculum.rates.tolist() == [0.5, 0.5, 0.5]
    begin(curriculum, 2, {0: 0, 1: 1, 2: 1})
    assert curriculum.rates.tolist() == [0.25, 0.75, 0.75]


def test_a_group_that_was_not_graded_changes_no_rate():
    curriculum = make(size=3)
    begin(curriculum, 0, {0: 1, 1: 0.5, 2: 0})
    curriculum.begin(1)
    curriculum.record(torch.full((6, 2), NAN))
    assert curriculum.rates.tolist() == [1.0, 0.5, 0.0]


def test_rewards_for_the_form_are_skipped():
    curriculum = make(size=3)
    curriculum.skipped = {0}
    curriculum.begin(0)
    curriculum.record(torch.tensor([[9.0, value] for value in (0.0, 1.0, 1.0, 1.0, 0.0, 0.0)]))
    assert curriculum.rates.tolist() == [0.5, 1.0, 0.0]
    curriculum.begin(1)
    with pytest.raises(TrainingStopped, match="solve rate from the reward 'penalty', which is 2"):
        curriculum.record(torch.full((6, 2), 2.0))


def test_metrics_are_shares_of_the_training_set():
    curriculum = make(size=8)
    assert curriculum.metrics() == {
        "gbpo/difficulty/below": 0,
        "gbpo/difficulty/inside": 0,
        "gbpo/difficulty/above": 0,
        "gbpo/difficulty/unseen": 1,
    }
    begin(curriculum, 0, {0: 1, 1: 0.5, 2: 0})
    begin(curriculum, 1, {3: 1, 4: 0.5, 5: 1})
    assert curriculum.metrics() == {
        "gbpo/difficulty/below": 1 / 8,
        "gbpo/difficulty/inside": 2 / 8,
        "gbpo/difficulty/above": 3 / 8,
        "gbpo/difficulty/unseen": 2 / 8,
        "gbpo/difficulty/solve_rate": pytest.approx((3 + 2 * 0.5) / 6),
    }


def test_both_limits_belong_to_the_band():
    curriculum = make(size=3, low=0.5, high=0.75)
    begin(curriculum, 0, {0: 0.5, 1: 0.5, 2: 1})
    begin(curriculum, 1, {0: 0.5, 1: 1, 2: 0.5})  # 0.5, 0.75, 0.75
    assert curriculum.metrics()["gbpo/difficulty/inside"] == 1


# --- the choice


@pytest.mark.parametrize("rank", [0, 1])
def test_with_all_prompts_inside_the_order_is_that_of_the_data_loader(rank):
    """Three passes of 3 generations. A prompt is left over in each pass, and each rank gets its half."""
    dataset = prompts(10)
    sampler = RepeatSampler(dataset, 2, batch_size=3, repeat_count=4, shuffle=True, seed=5)
    plain = PromptOrder(dataset, sampler, 6, 4, slice(3 * rank, 3 * rank + 3))
    curriculum = make(10, low=0.0, high=1.0, revisit=0.5, shuffle=True, mine=slice(3 * rank, 3 * rank + 3))
    orders = []
    for number in range(9):
        rows = curriculum.begin(number)
        assert rows == plain.rows(number)
        curriculum.record(torch.tensor([[0.0], [0.0], [1.0], [0.0], [1.0], [1.0]]))
        orders.append(str(rows))
    assert orders[:3] != orders[3:6] != orders[6:]


def test_the_first_pass_has_the_usual_order_whatever_the_rates():
    curriculum = make(revisit=0.5)
    chosen = [begin(curriculum, number, dict.fromkeys(range(12), 0)) for number in range(4)]
    assert chosen == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_prompts_outside_the_band_are_left_out():
    rates = {prompt: (0, 0.5, 1)[prompt % 3] for prompt in range(12)}  # 1, 4, 7 and 10 are inside
    curriculum = make(count=2)
    for number in range(6):
        begin(curriculum, number, rates)
    assert [begin(curriculum, number, rates) for number in range(6, 10)] == [[1, 4], [7, 10]] * 2


def test_the_share_of_revisits_is_exact():
    """0.25 of 2 prompts is one prompt in every second generation. The others come from the band."""
    rates = {prompt: (0, 0.5, 1)[prompt % 3] for prompt in range(12)}
    curriculum = make(count=2, revisit=0.25)
    for number in range(6):
        begin(curriculum, number, rates)
    chosen = [begin(curriculum, number, rates) for number in range(6, 46)]
    outside = [sum(prompt % 3 != 1 for prompt in generation) for generation in chosen]
    assert outside == [0, 1] * 20
    assert {prompt for generation in chosen for prompt in generation} == set(range(12)), "all of them come back"


def test_a_revisited_prompt_is_in_its_generation_once():
    """All prompts are outside the band, so each generation has revisits and prompts that fill it."""
    curriculum = make(size=4, count=3, revisit=0.5)
    for number in range(30):
        chosen = begin(curriculum, number)
        curriculum.record(torch.zeros(6, 2))
        assert len(set(chosen)) == 3


def test_the_seed_of_the_run_draws_the_revisits():
    chosen = []
    for seed in (1, 2, 1):
        curriculum = make(revisit=0.5, seed=seed)
        chosen.append([begin(curriculum, number, dict.fromkeys(range(12), 0)) for number in range(12)])
    assert chosen[0] == chosen[2] != chosen[1]
    assert chosen[0][:4] == chosen[1][:4], "the first pass has the usual order"


def test_a_prompt_that_moves_into_the_band_is_used_again():
    curriculum = make(size=4, count=2, revisit=0.5)
    rates = {0: 0.5, 1: 0.5, 2: 0, 3: 0}
    for number in range(2):
        begin(curriculum, number, rates)
    rates |= {2: 1}  # its running mean becomes 0.5, then 0.75
    seen = [begin(curriculum, number, rates) for number in range(2, 16)]
    first = next(i for i, generation in enumerate(seen) if 2 in generation)
    assert 2 in [generation[0] for generation in seen[first + 1 :]], "prompts of the band come first"


def test_too_few_prompts_inside_the_band_are_filled_with_others_and_none_comes_twice():
    rates = {prompt: 0.5 if prompt == 4 else 0 for prompt in range(12)}
    curriculum = make()
    for number in range(4):
        begin(curriculum, number, rates)
    chosen = [begin(curriculum, number, rates) for number in range(4, 24)]
    assert all(generation[0] == 4 and len(set(generation)) == 3 for generation in chosen)
    assert {prompt for generation in chosen for prompt in generation} == set(range(12))


def test_the_rows_of_the_ranks_make_the_generation():
    whole, left, right = make(), make(mine=slice(0, 3)), make(mine=slice(3, 6))
    for number in range(9):
        rows = whole.begin(number)
        assert rows == left.begin(number) + right.begin(number)
        for one in (whole, left, right):
            one.record(torch.tensor([[0.0], [0.0], [1.0], [0.0], [1.0], [1.0]]))


def test_prompts_are_chosen_by_the_rates_of_the_first_call():
    """The completions of a generation that is sampled ahead belong to these prompts."""
    curriculum = make(size=6, count=2)
    rates = dict.fromkeys(range(6), 0.5)
    for number in range(3):
        begin(curriculum, number, rates)
    ahead = curriculum.rows(4)
    assert [row["prompt"] for row in curriculum.rows(3)] != [row["prompt"] for row in ahead]
    begin(curriculum, 3, dict.fromkeys(range(6), 0))
    assert curriculum.rows(4) == ahead == curriculum.begin(4)


def test_further_prompts_come_from_the_band_first():
    curriculum = make(count=2)
    rates = {prompt: (0, 0.5, 1)[prompt % 3] for prompt in range(12)}
    for number in range(5):  # 10 and 11 are new
        begin(curriculum, number, rates)
    drawn = curriculum.further(random.Random(0), 5)
    assert sorted(drawn) == [1, 4, 7, 10, 11]
    assert len(set(curriculum.further(random.Random(0), 8))) == 8
    assert curriculum.further(random.Random(0), 3) == curriculum.further(random.Random(0), 3)
    assert curriculum.further(random.Random(0), 3) != curriculum.further(random.Random(1), 3)
    before = curriculum.rates.clone()
    (prompt,) = curriculum.further(random.Random(0), 1)
    curriculum.record(torch.ones(2, 1))
    changed = (curriculum.rates != before) & ~(curriculum.rates.isnan() & before.isnan())
    assert changed.nonzero().flatten().tolist() == [prompt], "the rewards that come next are those of these prompts"


# --- checkpoints


@pytest.mark.parametrize("saved", [0, 2, 4, 7, 11])
def test_a_restored_curriculum_makes_the_same_choices(saved):
    rng = random.Random(3)
    rates = [{prompt: rng.choice([0, 0.5, 1]) for prompt in range(10)} for _ in range(20)]
    whole, again = make(10, revisit=0.3, shuffle=True), make(10, revisit=0.3, shuffle=True)
    for number in range(saved):
        begin(whole, number, rates[number])
    ahead = whole.rows(saved)
    again.load(deepcopy(whole.state()))
    assert again.rows(saved) == ahead
    for number in range(saved, 20):
        assert begin(again, number, rates[number]) == begin(whole, number, rates[number])
    assert torch.equal(again.rates, whole.rates)


@pytest.mark.parametrize("other", [prompts(11), prompts(12).select([1, 0, *range(2, 12)])])
def test_the_rates_of_other_prompts_are_refused(other):
    with pytest.raises(TrainingStopped, match="solve rates of other prompts"):
        make(dataset=other).load(make().state())


def test_prompts_may_be_messages():
    messages = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in "abc"]})
    assert json.dumps(make(dataset=messages).state()["prompts"])
    make(dataset=messages).load(make(dataset=messages).state())
