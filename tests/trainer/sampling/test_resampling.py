"""Groups without signal are replaced by groups of other prompts, with all their tensors; metrics record the cost."""

import pytest
import torch
from datasets import Dataset, IterableDataset

from gbpo import GBPOTrainer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from rollouts import ended, rollout_of

WITH_SIGNAL = {0, 2, 4, 6}  # prompts whose groups have a signal


class Rewards:
    """Different rewards for completions of the prompts `with_signal`, equal ones for the rest; records its calls."""

    __name__ = "rewards"

    def __init__(self, with_signal=WITH_SIGNAL):
        self.with_signal, self.calls = with_signal, []

    def __call__(self, prompts, completions, **columns):
        self.calls.append(list(prompts))
        return [float(i % 4 == 1) if int(prompt[0]) in self.with_signal else 1.0 for i, prompt in enumerate(prompts)]


def ragged(prompts, trainer):
    """Completions whose lengths differ between generations, so that their batches have different widths."""
    trainer.generations = getattr(trainer, "generations", -1) + 1
    texts = ["1" * (1 + (i + trainer.generations) % 4 + 3 * trainer.generations) for i in range(len(prompts))]
    return rollout_of(trainer, prompts, ended(trainer, texts))


@pytest.fixture(params=["gbpo", "grpo"])
def make(request, make_trainer, random_model):
    def make(rewards, **config):
        defaults = {
            "dataset": Dataset.from_dict({"prompt": [f"{i}{'+1' * (1 + i)}=" for i in range(8)]}),
            "resample_zero_signal_groups": True,
            "trainer": {"rollout_func": ragged},
        }
        if request.param == "grpo":
            defaults |= {"base": BaseTrainer, "config_class": BaseConfig}
        trainer = make_trainer(reward_funcs=rewards, **defaults | config)
        trainer.model.train()
        return trainer

    return make


def scored(trainer, *numbers):
    """The scored batch of groups of 4 of these prompts, and the prompt of each of its rows."""
    rows = [row for number in numbers for row in [dict(trainer.train_dataset[number])] * 4]
    batch = trainer._generate_and_score_completions(rows)
    texts = trainer.processing_class.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    return batch, [int(text.strip()[0]) for text in texts]


def test_groups_without_signal_are_replaced(make):
    rewards = Rewards()
    trainer = make(rewards)
    batch, prompts = scored(trainer, 1, 2, 3)
    groups = [prompts[i : i + 4] for i in range(0, 12, 4)]
    assert all(len(set(group)) == 1 and group[0] in WITH_SIGNAL for group in groups), groups
    assert groups[1] == [2] * 4, "a group with a signal stays where it is"
    advantages = batch["advantages"].view(3, 4)
    assert (advantages.amax(1) > advantages.amin(1)).all()
    assert len(batch["completion_ids"]) == len(batch["completion_mask"]) == 12
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    if isinstance(trainer, GBPOTrainer):
        assert ((batch["target_ratio"] > 1) == (batch["advantages"] > 0)).all()


def test_metrics_describe_the_first_generation_and_the_cost(make):
    rewards = Rewards()
    trainer = make(rewards)
    scored(trainer, 1, 2)
    metrics = trainer._metrics["train"]
    assert metrics["reward"] == [pytest.approx((1 + 0.25) / 2)]
    assert metrics["frac_reward_zero_std"] == [pytest.approx(1 / 2)]
    assert metrics["gbpo/resampling_rounds"] == [len(rewards.calls) - 1]
    assert metrics["gbpo/resampled_groups"] == [sum(map(len, rewards.calls[1:])) / 4]
    assert metrics["gbpo/groups_without_signal"] == [0]
    assert metrics["num_tokens"] == [trainer.state.num_input_tokens_seen]
    assert list(trainer._logs["prompt"]) == rewards.calls[0]
    assert len(trainer._logs["advantages"]) == 8


def test_every_tensor_of_a_row_moves_with_it(make, without):
    """The rows come from batches of different widths. Their log-probs and masks still belong to their tokens."""
    trainer = make(Rewards(), **without("reuse_first_pass"), beta=0.1)
    batch, _ = scored(trainer, 1, 2, 3)
    assert trainer.generations >= 1
    tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    with torch.no_grad():
        logps = trainer._get_per_token_logps_and_entropies(
            trainer.model, tokens, mask, batch["completion_ids"].size(1)
        )[0]
    inside = batch["completion_mask"].bool()
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        torch.testing.assert_close(batch[name][inside], logps[inside], atol=1e-5, rtol=0)
    assert (tokens[mask == 0] == trainer.processing_class.pad_token_id).all()


def test_a_generation_with_signal_in_every_group_is_not_changed(make):
    rewards = Rewards()
    trainer = make(rewards)
    batch, prompts = scored(trainer, 0, 2)
    assert prompts == [0] * 4 + [2] * 4 and len(rewards.calls) == 1
    assert trainer._metrics["train"]["gbpo/resampled_groups"] == [0]
    plain, _ = scored(make(Rewards(), resample_zero_signal_groups=False), 0, 2)
    assert plain.keys() == batch.keys()
    for name, value in plain.items():
        torch.testing.assert_close(batch[name], value, atol=0, rtol=0)


def test_resampling_stops_if_no_prompt_has_a_signal(make, caplog):
    rewards = Rewards(with_signal=set())
    trainer = make(rewards)
    _, prompts = scored(trainer, 1, 2)
    assert prompts == [1] * 4 + [2] * 4
    assert len(rewards.calls) == 11
    assert trainer._metrics["train"]["gbpo/groups_without_signal"] == [2]
    assert "too easy or too hard" in caplog.text


def test_resampled_prompts_depend_on_step_and_round(make):
    trainer = make(Rewards())

    def drawn(*which):
        return [row["prompt"] for row in trainer.resampling.further_prompts(*which)]

    first = drawn(3, 0, 1)
    assert first == drawn(3, 0, 1) and len(set(first)) == 3
    assert first != drawn(3, 0, 2)
    assert first != drawn(3, 1, 1)


def test_no_resampling_in_evaluation(make):
    rewards = Rewards()
    trainer = make(rewards, num_generations_eval=4)
    trainer.model.eval()
    _, prompts = scored(trainer, 1, 3)
    assert prompts == [1] * 4 + [3] * 4 and len(rewards.calls) == 1


def test_training_runs_and_every_row_is_run(make):
    trainer = make(Rewards(), max_steps=4, shuffle_dataset=False)
    trainer.train()
    steps = [row for row in trainer.state.log_history if "reward" in row]
    assert {row["gbpo/groups_without_signal"] for row in steps} == {0}
    assert any(row["gbpo/resampled_groups"] > 0 for row in steps)
    if isinstance(trainer, GBPOTrainer):
        assert {row["gbpo/rows_run"] for row in steps if "gbpo/rows_run" in row} == {1}


def test_data_sets_that_cannot_be_resampled_are_refused(make):
    with pytest.raises(ValueError, match="resample_zero_signal_groups.*'image'"):
        make(Rewards(), dataset=Dataset.from_dict({"prompt": ["1+1="], "image": [None]}))
    endless = IterableDataset.from_generator(lambda: iter([{"prompt": "1+1="}]))
    with pytest.raises(ValueError, match="IterableDataset does not have"):
        make(Rewards(), dataset=endless, max_steps=1)


@pytest.mark.parametrize(("prompts", "groups"), [((0, 2, 4, 1), 2), ((0, 1, 3, 5), 4)], ids=["1 of 4", "3 of 4"])
def test_the_number_of_resampled_groups_follows_the_rate_of_signals(make, prompts, groups):
    """1 missing group at a rate of 3/4 needs 2 groups; 3 missing at 1/4 need 12, limited to 4, the generation batch."""
    rewards = Rewards()
    scored(make(rewards), *prompts)
    assert len(rewards.calls[1]) == 4 * groups
