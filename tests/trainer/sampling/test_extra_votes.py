"""Votes beyond the completions that are trained on: they reach the reward, and nothing else notices them."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run import train
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.sampling.extra_votes import vote_rounds

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TINY = ROOT / "recipes" / "tiny_ttrl.yaml"
ALGORITHMS = {"gbpo": (GBPOTrainer, GBPOConfig), "grpo": (BaseTrainer, GRPOConfig)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


class Spy:
    """A reward that asks for votes and keeps what it is given."""

    __name__ = "spy"

    def __init__(self, votes=None):
        self.votes = votes
        self.calls = []

    def __call__(self, completions, **columns):
        self.calls.append({"completions": completions, **columns})
        return [float(len(self.calls))] * len(completions)


@pytest.fixture
def make(random_model, tmp_path):
    def make(algorithm, reward, *, trainer_class=None, trainer=None, **config):
        default_class, config_class = ALGORITHMS[algorithm]
        args = config_class(
            str(tmp_path / algorithm),
            use_cpu=True,
            bf16=False,
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=6,
            activation_checkpointing=False,
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            learning_rate=1e-2,
            **config,
        )
        dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]})
        return (trainer_class or default_class)(random_model, reward, args, train_dataset=dataset, **(trainer or {}))

    return make


def scripted(prompts, trainer):
    """In round k of a trainer every completion is the question and k + 1 marks."""
    trainer.rounds = getattr(trainer, "rounds", -1) + 1
    encode = trainer.processing_class
    questions = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return {
        "prompt_ids": [encode(question)["input_ids"] for question in questions],
        "completion_ids": [
            [*encode(question + "!" * (trainer.rounds + 1))["input_ids"], encode.eos_token_id] for question in questions
        ],
        "logprobs": None,
    }


def rows(form):
    questions = ["1+1="] * 4 + ["2+2="] * 4
    if form == "text":
        return [{"prompt": question} for question in questions]
    return [{"prompt": [{"role": "user", "content": question}]} for question in questions]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["text", "messages"])
def test_two_rounds_of_votes_reach_the_reward_and_the_first_is_trained_on(make, algorithm, form):
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
    assert batch["completion_ids"].shape == (8, 6)  # four characters, a mark and the end
    assert all("extra_votes" not in row for row in inputs)  # rows of the data set
    metrics = trainer._metrics["train"]
    assert metrics["completions/mean_length"] == metrics["completions/max_length"] == [6.0]
    assert metrics["num_tokens"] == [8 * (3 * 4 + 6 + 7 + 8)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_votes_are_drawn_anew_from_the_model(make, algorithm):
    spy = Spy(votes=8)
    trainer = make(algorithm, spy)
    trainer.model.train()
    trainer._generate_and_score_completions(rows("text"))
    (call,) = spy.calls
    first, second = call["completions"], [votes[0] for votes in call["extra_votes"]]
    assert all(len(votes) == 1 and isinstance(votes[0], str) for votes in call["extra_votes"])
    assert len(set(first + second)) > 12  # an untrained model repeats itself rarely


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_as_many_votes_as_completions_need_no_more(make, algorithm):
    spy = Spy(votes=4)
    trainer = make(algorithm, spy, trainer={"rollout_func": scripted})
    trainer.model.train()
    trainer._generate_and_score_completions(rows("text"))
    assert spy.calls[0]["extra_votes"] == [[]] * 8 and trainer.rounds == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evaluation_draws_none(make, algorithm):
    spy = Spy(votes=12)
    trainer = make(algorithm, spy, trainer={"rollout_func": scripted})
    trainer.model.eval()
    trainer._generate_and_score_completions(rows("text"))
    assert spy.calls[0]["extra_votes"] == [[]] * 8 and trainer.rounds == 0


def test_a_run_without_votes_is_trls_to_the_bit(make):
    ends = []
    for trainer_class in (GRPOTrainer, BaseTrainer):
        spy = Spy()
        trainer = make("grpo", [spy, digits], trainer_class=trainer_class, max_steps=3)
        trainer.train()
        assert all("extra_votes" not in call for call in spy.calls)
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def digits(completions, **kwargs):
    return [float(sum(c.isdigit() for c in completion)) for completion in completions]


@pytest.mark.parametrize(
    ("votes", "mend"),
    [([10], "votes=8"), ([2], "votes=4"), ([0], "votes=4"), ([15], "votes=16"), ([8, 12], "one number")],
)
def test_votes_that_do_not_fit_are_refused(make, votes, mend):
    with pytest.raises(ValueError, match=f"{votes[0]} .*{mend}"):
        vote_rounds([SimpleNamespace(votes=v) for v in votes], num_generations=4)
    with pytest.raises(ValueError, match=mend):
        make("gbpo", [Spy(v) for v in votes])


def test_tools_are_refused(monkeypatch):
    def init(self):
        self.__dict__.update(reward_funcs=[Spy(8)], num_generations=4, tools=[len])

    monkeypatch.setattr(GRPOTrainer, "__init__", init)
    with pytest.raises(ValueError, match=r"1 more round.* tools"):
        BaseTrainer()


def test_the_command_refuses_votes_before_any_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--reward_kwargs", "{majority_vote: {votes: 12, boxed: false}}", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        train.main([str(TINY), *flags])
    assert stop.value.code == 2
    assert "gbpo: error: votes=12 is not a multiple of num_generations=8" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


def subprocess_of(command, **kwargs):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False, **kwargs
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_recipe_as_it_stands(random_model, tmp_path):
    """Only the model, which answers anything at all, the batch and the number of steps are others."""
    flags = ("--model_name_or_path", random_model, "--per_device_train_batch_size", 16, "--logging_steps", 1)
    command = [*TORCHRUN, 2, ROOT / "launch" / "gbpo.py", TINY, "--max_steps", 2, *flags]
    subprocess_of(command, cwd=tmp_path)
    folder = tmp_path / "runs" / "tiny_ttrl"
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2]
    for name in ("majority_ratio", "label_accuracy", "reward_accuracy", "ok", "mean"):
        assert 0.0 <= logged[0][f"rewards/majority_vote/{name}"] <= 1.0
    assert logged[0]["reward"] == logged[0]["rewards/majority_vote/mean"]  # the golds train nothing
    assert "gbpo/ratio_error" in logged[0]


# what 16 rows answer in three rounds; in groups of 8 the labels are 0 and 1, of all 16 it is 1
ANSWERS = ["11102210" + "02222212", "00012000" + "11122111", "02001100" + "11211120"]


def voting_step(model, folder, processes, algorithm, num_generations):
    launcher = [*TORCHRUN, processes] if processes > 1 else [sys.executable]
    output = folder / f"{processes}.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = (model, output, processes, algorithm, num_generations, json.dumps(ANSWERS))
    subprocess_of([*launcher, HERE / "voting_step.py", *arguments], env=environment)
    return json.loads(output.read_text())


# with 16 the one prompt lies on both ranks
@pytest.mark.parametrize(("algorithm", "num_generations"), [("gbpo", 16), ("grpo", 8)])
def test_two_processes_vote_as_one(random_model, tmp_path, algorithm, num_generations):
    paid = []
    for first in range(0, 16, num_generations):
        group = slice(first, first + num_generations)
        label = Counter("".join(answers[group] for answers in ANSWERS)).most_common(1)[0][0]
        assert label != Counter(ANSWERS[0][group]).most_common(1)[0][0]  # the extra votes decide
        paid += [float(answer == label) for answer in ANSWERS[0][group]]
    one = voting_step(random_model, tmp_path, 1, algorithm, num_generations)
    two = voting_step(random_model, tmp_path, 2, algorithm, num_generations)
    assert one["paid"] == [paid]
    assert two["paid"] == [paid[:8], paid[8:]]
    assert one["rounds"] == two["rounds"] == 3
    for name in ("majority_ratio", "label_accuracy", "reward_accuracy", "mean"):
        name = f"rewards/majority_vote/{name}"
        assert one["metrics"][name] == pytest.approx(two["metrics"][name])
