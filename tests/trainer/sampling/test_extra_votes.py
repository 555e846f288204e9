"""Extra votes: completions that only the reward sees, and that change nothing else in a step."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

import processes
from gbpo.run import train
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.sampling.extra_votes import ExtraVotes, vote_rounds
from rollouts import count_digits, ended, rollout_of, text_of

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TINY = ROOT / "recipes" / "tiny_ttrl.yaml"
ALGORITHMS = ("gbpo", "grpo")


# --- the part alone


ROWS = [{"prompt": "a", "solution": "1"}, {"prompt": "a", "solution": "1"}, {"prompt": "b", "solution": "2"}]


def test_each_row_gets_one_vote_per_round():
    rounds = iter(("x", "y"))

    def generate(prompts):
        mark = next(rounds)
        return [f"{prompt}{i}{mark}" for i, prompt in enumerate(prompts)]

    rows = ExtraVotes(2).add(ROWS, ["a", "a", "b"], generate)
    assert [row["extra_votes"] for row in rows] == [["a0x", "a0y"], ["a1x", "a1y"], ["b2x", "b2y"]]
    assert [row["solution"] for row in rows] == ["1", "1", "2"]
    assert all("extra_votes" not in row for row in ROWS)


def test_the_lists_of_votes_are_empty_without_rounds_and_in_evaluation():
    for rounds, generate in ((0, lambda prompts: pytest.fail("generated")), (2, None)):
        rows = ExtraVotes(rounds).add(ROWS, ["a", "a", "b"], generate)
        assert [row["extra_votes"] for row in rows] == [[], [], []]


def test_rows_are_unchanged_if_no_reward_asks_for_votes():
    assert ExtraVotes(None).add(ROWS, ["a", "a", "b"], None) is ROWS


@pytest.mark.parametrize(("votes", "rounds"), [([], None), ([None], None), ([4], 0), ([12], 2), ([12, None, 12], 2)])
def test_rounds(votes, rounds):
    assert vote_rounds([SimpleNamespace(votes=v) for v in votes], num_generations=4) == rounds


# --- in a trainer


class Spy:
    """A reward that asks for votes and records its arguments."""

    __name__ = "spy"

    def __init__(self, votes=None):
        self.votes = votes
        self.calls = []

    def __call__(self, completions, **columns):
        self.calls.append({"completions": completions, **columns})
        return [float(len(self.calls))] * len(completions)


@pytest.fixture
def make(make_trainer):
    def make(algorithm, reward, **config):
        base = BaseTrainer if algorithm == "grpo" else None
        return make_trainer(algorithm, **{"base": base, "reward_funcs": reward, "num_iterations": 1} | config)

    return make


def scripted(prompts, trainer):
    """In round k of a trainer, every completion is its question followed by k + 1 exclamation marks."""
    trainer.rounds = getattr(trainer, "rounds", -1) + 1
    questions = [text_of(prompt) for prompt in prompts]
    answers = [question + "!" * (trainer.rounds + 1) for question in questions]
    return rollout_of(trainer, questions, ended(trainer, answers))


def rows(form):
    questions = ["1+1="] * 4 + ["2+2="] * 4
    if form == "text":
        return [{"prompt": question} for question in questions]
    return [{"prompt": [{"role": "user", "content": question}]} for question in questions]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["text", "messages"])
def test_two_extra_rounds_reach_the_reward_and_the_first_round_is_trained_on(make, algorithm, form):
    spy = Spy(votes=12)
    trainer = make(algorithm, spy, trainer={"rollout_func": scripted})
    trainer.model.train()
    inputs = rows(form)
    batch = trainer._generate_and_score_completions(inputs)

    def written(question, k):
        text = question + "!" * (k + 1)
        return text if form == "text" else [{"role": "assistant", "content": text}]

    questions = ["1+1="] * 4 + ["2+2="] * 4
    (call,) = spy.calls
    assert call["completions"] == [written(question, 0) for question in questions]
    assert call["extra_votes"] == [[written(question, 1), written(question, 2)] for question in questions]
    assert batch["completion_ids"].shape == (8, 6)  # four characters, an exclamation mark and the end token
    assert all("extra_votes" not in row for row in inputs)  # rows of the data set are not changed
    metrics = trainer._metrics["train"]
    assert metrics["completions/mean_length"] == metrics["completions/max_length"] == [6.0]
    assert metrics["num_tokens"] == [8 * (3 * 4 + 6 + 7 + 8)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_votes_are_new_samples_of_the_model(make, algorithm):
    spy = Spy(votes=8)
    trainer = make(algorithm, spy)
    trainer.model.train()
    trainer._generate_and_score_completions(rows("text"))
    (call,) = spy.calls
    first, second = call["completions"], [votes[0] for votes in call["extra_votes"]]
    assert all(len(votes) == 1 and isinstance(votes[0], str) for votes in call["extra_votes"])
    assert len(set(first + second)) > 12  # an untrained model rarely repeats a completion


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_extra_round_for_as_many_votes_as_completions(make, algorithm):
    spy = Spy(votes=4)
    trainer = make(algorithm, spy, trainer={"rollout_func": scripted})
    trainer.model.train()
    trainer._generate_and_score_completions(rows("text"))
    assert spy.calls[0]["extra_votes"] == [[]] * 8 and trainer.rounds == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_extra_round_in_evaluation(make, algorithm):
    spy = Spy(votes=12)
    trainer = make(algorithm, spy, trainer={"rollout_func": scripted})
    trainer.model.eval()
    trainer._generate_and_score_completions(rows("text"))
    assert spy.calls[0]["extra_votes"] == [[]] * 8 and trainer.rounds == 0


def test_a_run_without_votes_is_bitwise_equal_to_trl(make):
    weights = []
    for base, config_class in ((GRPOTrainer, GRPOConfig), (BaseTrainer, BaseConfig)):
        spy = Spy()
        config = {"base": base, "config_class": config_class, "exact_speedups": ["none"], "max_steps": 3}
        trainer = make("grpo", [spy, count_digits], **config)
        trainer.train()
        assert all("extra_votes" not in call for call in spy.calls)
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize(
    ("votes", "fix"),
    [([10], "votes=8"), ([2], "votes=4"), ([0], "votes=4"), ([15], "votes=16"), ([8, 12], "one of these numbers")],
)
def test_votes_that_do_not_fit_are_refused(make, votes, fix):
    with pytest.raises(ValueError, match=f"{votes[0]} .*{fix}"):
        vote_rounds([SimpleNamespace(votes=v) for v in votes], num_generations=4)
    with pytest.raises(ValueError, match=fix):
        make("gbpo", [Spy(v) for v in votes])


def test_the_command_refuses_votes_before_any_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--reward_kwargs", "{majority_vote: {votes: 12, boxed: false}}", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        train.main([str(TINY), *flags])
    assert stop.value.code == 2
    assert "gbpo: error: votes=12 is not a multiple of num_generations=8" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


def test_the_recipe_of_votes_runs(random_model, tmp_path):
    """With a smaller model, a smaller batch and fewer steps."""
    flags = ("--model_name_or_path", random_model, "--per_device_train_batch_size", 16, "--logging_steps", 1)
    processes.run_script(ROOT / "launch" / "gbpo.py", TINY, "--max_steps", 2, *flags, ranks=2, cwd=tmp_path)
    folder = tmp_path / "runs" / "tiny_ttrl"
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2]
    for name in ("majority_ratio", "label_accuracy", "reward_accuracy", "ok", "mean"):
        assert 0.0 <= logged[0][f"rewards/majority_vote/{name}"] <= 1.0
    assert logged[0]["reward"] == logged[0]["rewards/majority_vote/mean"]
    assert "gbpo/ratio_error" in logged[0]


# The answers of 16 rows in three rounds. The majority is 0 and 1 in groups of 8, and 1 in the group of 16.
ANSWERS = ["11102210" + "02222212", "00012000" + "11122111", "02001100" + "11211120"]


def voting_step(model, folder, ranks, algorithm, num_generations):
    """The result of voting_step.py."""
    output = folder / f"{ranks}.json"
    arguments = (model, output, ranks, algorithm, num_generations, json.dumps(ANSWERS))
    processes.run_script(HERE / "voting_step.py", *arguments, ranks=ranks)
    return json.loads(output.read_text())


# A group of 16 spans both ranks.
@pytest.mark.parametrize(("algorithm", "num_generations"), [("gbpo", 16), ("grpo", 8)])
def test_two_processes_give_the_rewards_of_one(random_model, tmp_path, algorithm, num_generations):
    rewards = []
    for first in range(0, 16, num_generations):
        group = slice(first, first + num_generations)
        label = Counter("".join(answers[group] for answers in ANSWERS)).most_common(1)[0][0]
        assert label != Counter(ANSWERS[0][group]).most_common(1)[0][0]  # without extra votes it would differ
        rewards += [float(answer == label) for answer in ANSWERS[0][group]]
    one = voting_step(random_model, tmp_path, 1, algorithm, num_generations)
    two = voting_step(random_model, tmp_path, 2, algorithm, num_generations)
    assert one["rewards"] == [rewards]
    assert two["rewards"] == [rewards[:8], rewards[8:]]
    assert one["rounds"] == two["rounds"] == 3
    for name in ("majority_ratio", "label_accuracy", "reward_accuracy", "mean"):
        name = f"rewards/majority_vote/{name}"
        assert one["metrics"][name] == pytest.approx(two["metrics"][name])
