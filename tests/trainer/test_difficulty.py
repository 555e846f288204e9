"""Runs with `difficulty`: which prompts are trained on, that a wide band changes nothing, resuming, two processes."""

import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset

import processes
from evals.bench.stand_in import served
from evals.bench.vllm_server import weights_by_file
from gbpo import GBPOConfig
from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.guards.phase_times import PHASES
from rollouts import character_sum

PROMPTS = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(9)]})  # 4 generations of 2 prompts per pass
UPDATES = 2  # optimiser steps per generation
TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
TIMES |= {f"time/{phase}" for phase in PHASES}
BAND = {"low": 0.1, "high": 0.9, "revisit": 0.25}
HARD = {"0+1=", "1+1=", "2+1=", "3+1="}


def reward(prompts, completions, **kwargs):
    """0 or 1 by the text. Hard prompts are never solved."""
    return [
        0.0 if prompt in HARD else float(value < 3)
        for prompt, value in zip(prompts, character_sum(completions), strict=True)
    ]


class Voting:
    """The same reward, with another round of votes."""

    __name__ = "voting"
    votes = 8

    def __call__(self, prompts, completions, extra_votes, **kwargs):
        return reward(prompts, completions)


@pytest.fixture
def make(make_trainer, tmp_path):
    """`make("gbpo" | "grpo", folder, **config)`: a trainer of 8 generations with 2 optimiser steps each."""

    def make(algorithm="gbpo", folder="run", **config):
        defaults = {
            "per_device_train_batch_size": 4,
            "steps_per_generation": 2,
            "num_iterations": 1,
            "max_steps": 8 * UPDATES,
            "seed": 3,
            "dataset": PROMPTS,
            "reward_funcs": reward,
            "difficulty": BAND,
            "output_dir": str(tmp_path / folder),
        }
        if algorithm == "grpo":
            defaults |= {"base": BaseTrainer, "config_class": BaseConfig}
        return make_trainer(algorithm, **defaults | config)

    return make


def history(trainer, without=()):
    return [{k: v for k, v in row.items() if k not in TIMES | set(without)} for row in trainer.state.log_history]


def same_weights(one, other):
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def trained(trainer, **options):
    """Train, and record the prompts of each scored generation as `used`."""
    trainer.used, score = [], trainer._scored

    def record(inputs):
        trainer.used.append([row["prompt"] for row in inputs])
        return score(inputs)

    trainer._scored = record
    trainer.train(**options)
    return trainer


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_with_all_prompts_inside_the_run_is_bitwise_the_same(make, algorithm, ahead):
    plain = trained(make(algorithm, "plain", difficulty=None, generate_ahead=ahead))
    wide = trained(make(algorithm, "wide", difficulty={"low": 0.0, "high": 1.0}, generate_ahead=ahead))
    assert len({str(generation) for generation in plain.used}) == 8
    assert wide.used == plain.used
    assert history(wide, without=wide.curriculum.metrics())[:-1] == history(plain)[:-1]
    assert same_weights(wide, plain)


@pytest.mark.slow
def test_workers_that_load_rows_in_advance_change_nothing(make):
    plain = trained(make(folder="plain"))
    workers = trained(make(folder="workers", dataloader_num_workers=1, dataloader_prefetch_factor=4))
    assert workers.used == plain.used and same_weights(workers, plain)


@pytest.mark.sweep
@pytest.mark.parametrize(("algorithm", "ahead"), [("gbpo", 0), ("grpo", 1)])
def test_prompts_that_are_never_solved_are_left_out(make, algorithm, ahead):
    trainer = trained(make(algorithm, generate_ahead=ahead, max_steps=16 * UPDATES))
    plain = make(algorithm, difficulty=None, max_steps=4 * UPDATES)
    first, later = trainer.used[:4], trainer.used[4 + ahead :]
    assert first == trained(plain).used, "the first pass has the usual order"
    hard = sum(prompt in HARD for generation in later for prompt in generation)
    total = sum(map(len, later))
    known = trainer.curriculum.rates[:4]
    assert known[~known.isnan()].eq(0).all() and trainer.curriculum.metrics()["gbpo/difficulty/below"] >= 3 / 9
    # without difficulty 4 of 9 prompts are hard; here it is the quarter that `revisit` asks for
    assert hard / total <= 0.3
    assert all(list(Counter(generation).values()) == [4, 4] for generation in trainer.used)


def test_metrics_are_logged_once_per_generation(make):
    trainer = trained(make(max_steps=3 * UPDATES))
    rows = [row for row in trainer.state.log_history if "gbpo/difficulty/unseen" in row]
    assert [row["step"] for row in rows] == [1, 1 + UPDATES, 1 + 2 * UPDATES]
    assert [row["gbpo/difficulty/unseen"] for row in rows] == pytest.approx([7 / 9, 5 / 9, 3 / 9])


@pytest.mark.sweep
def test_an_evaluation_changes_no_rate(make, monkeypatch):
    sets = {"trainer": {"eval_dataset": PROMPTS.select(range(2))}}
    config = {"max_steps": 2 * UPDATES, "per_device_eval_batch_size": 8, "eval_strategy": "steps", "eval_steps": 3}
    trainer, recorded = make(**config, **sets), []
    record = trainer.curriculum.record
    monkeypatch.setattr(trainer.curriculum, "record", lambda rewards: (recorded.append(rewards), record(rewards)))
    trainer.train()
    assert sum("eval_reward" in row for row in trainer.state.log_history) == 2
    assert len(recorded) == 2, "one per generation"
    assert (~trainer.curriculum.rates.isnan()).sum() == 4


def test_resampled_prompts_get_a_rate_and_come_from_the_band(make):
    trainer = trained(make(resample_zero_signal_groups=True, max_steps=4 * UPDATES))
    assert len(trainer.used) > 4, "hard prompts have no signal, so others are drawn"
    seen = {int(prompt[0]) for generation in trainer.used for prompt in generation}
    assert (~trainer.curriculum.rates.isnan()).nonzero().flatten().tolist() == sorted(seen)


RESUMED = {
    "gbpo": ("gbpo", {}),
    "grpo, two iterations": ("grpo", {"num_iterations": 2, "gradient_accumulation_steps": 2}),
    "gbpo, sampled ahead": ("gbpo", {"generate_ahead": 2}),
    "grpo, sampled ahead": ("grpo", {"generate_ahead": 1}),
    "resampling": ("gbpo", {"resample_zero_signal_groups": True}),
    "votes": ("gbpo", {"reward_funcs": Voting()}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_is_bitwise_equal(make, tmp_path, case):
    """From every optimiser step of two generations of the second pass, whose prompts depend on the rates."""
    algorithm, config = RESUMED[case]
    whole = trained(make(algorithm, "whole", **config, save_strategy="steps", save_steps=1))
    for step in range(4 * UPDATES, 6 * UPDATES):
        again = make(algorithm, f"again-{step}", **config)
        trained(again, resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert history(again)[:-1] == history(whole)[:-1], step
        assert same_weights(again, whole), step
        assert torch.equal(again.curriculum.rates, whole.curriculum.rates), step


def test_a_resume_with_other_prompts_ends_with_one_line(make, tmp_path):
    trained(make(max_steps=UPDATES, save_strategy="steps", save_steps=2))
    other = make(folder="again", dataset=PROMPTS.select([*range(8), 7]), max_steps=2 * UPDATES)
    with pytest.raises(TrainingStopped, match="solve rates of other prompts"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize(("before", "after"), [(None, BAND), (BAND, None)])
def test_a_run_may_be_resumed_with_another_difficulty(make, tmp_path, before, after):
    trained(make(difficulty=before, max_steps=5 * UPDATES, save_strategy="steps", save_steps=UPDATES))
    again = make(folder="again", difficulty=after, max_steps=5 * UPDATES)
    trained(again, resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{UPDATES}"))
    assert again.state.global_step == 5 * UPDATES and len(again.used) == 4


@pytest.mark.slow
def test_a_server_samples_the_chosen_prompts(make, random_model):
    with served(random_model) as server, weights_by_file():
        url = f"http://127.0.0.1:{server.server_port}"
        config = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": url, "temperature": 1.3}
        trainer = trained(make(generate_ahead=1, max_steps=12 * UPDATES, **config))
    hard = [sum(prompt in HARD for prompt in generation) for generation in trainer.used]
    assert len(hard) == 12 and sum(hard[5:]) / (7 * 8) <= 0.3, "generation 4 was chosen within the first pass"


@pytest.mark.slow
def test_two_processes_choose_as_one_and_resume_bitwise_equal(random_model, tmp_path):
    """Groups of 4 completions span both processes. The run is resumed within generation 3, in the second pass."""
    script = Path(__file__).parent / "difficult_run.py"
    runpy.run_path(str(script))["main"](random_model, tmp_path / "one")
    for name, checkpoint in (("two", ()), ("again", [tmp_path / "two" / "checkpoint-7"])):
        processes.run_script(script, random_model, tmp_path / name, *checkpoint, ranks=2)
    found = {name: torch.load(tmp_path / name / "result.pt") for name in ("one", "two", "again")}
    assert found["one"]["prompts"] == found["two"]["prompts"]
    assert found["one"]["rates"].isnan().sum() < 8
    for name in ("rates", "weights"):
        assert torch.equal(found["again"][name], found["two"][name])
        torch.testing.assert_close(found["two"][name], found["one"][name], rtol=1e-4, atol=1e-5, equal_nan=True)
    assert found["again"]["prompts"] == found["two"]["prompts"][4:]


# --- refused


WRONG = {
    "not a mapping": ("hard", "difficulty='hard' is not a mapping"),
    "a list": ([0.1, 0.9], r"difficulty=\[0.1, 0.9\] is not a mapping"),
    "an unknown key": ({"low": 0.1, "high": 0.9, "revisits": 0.1}, "the key 'revisits', which nothing reads"),
    "no high": ({"low": 0.1}, "lacks high"),
    "no low": ({"high": 0.9}, "lacks low"),
    "low above high": ({"low": 0.9, "high": 0.1}, "low=0.9 and high=0.1, so no prompt would be preferred"),
    "an empty band": ({"low": 0.5, "high": 0.5}, "low=0.5 and high=0.5"),
    "below 0": ({"low": -0.1, "high": 0.9}, "low=-0.1, which is not a share"),
    "above 1": ({"low": 0.1, "high": 1.1}, "high=1.1, which is not a share"),
    "NaN": ({"low": float("nan"), "high": 0.9}, "low=nan, which is not a share"),
    "text": ({"low": "0.1", "high": 0.9}, "low='0.1', which is not a share"),
    "a boolean": ({"low": False, "high": 0.9}, "low=False, which is not a share"),
    "all revisits": ({"low": 0.1, "high": 0.9, "revisit": 1}, "revisit=1, so no prompt inside the band"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("config_class", [GBPOConfig, BaseConfig])
def test_values_that_cannot_be_meant(tmp_path, config_class, case):
    value, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        config_class(str(tmp_path), use_cpu=True, bf16=False, num_generations=4, difficulty=value)
    assert "\n" not in str(error.value) and "Write" in str(error.value)


def test_an_empty_mapping_turns_it_off(tmp_path):
    assert GBPOConfig(str(tmp_path), use_cpu=True, bf16=False, difficulty={}).difficulty is None


def test_an_iterable_data_set_is_refused(make):
    with pytest.raises(ValueError, match="difficulty=.* chooses prompts by their index, which an IterableDataset"):
        make(dataset=IterableDataset.from_generator(lambda: iter(PROMPTS)))


def test_a_reward_that_is_no_share_ends_the_run(make):
    with pytest.raises(TrainingStopped, match="solve rate from the reward 'character_sum'.*needs rewards in"):
        make(reward_funcs=character_sum).train()
