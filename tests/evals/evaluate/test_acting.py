"""An evaluation plays episodes in an environment: each completion gets the reward of its own episode."""

import dataclasses
import json
import re
import sys

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

import acting
from evals.evaluate import command, generation
from evals.evaluate.command import summary_lines
from evals.evaluate.evaluation import evaluate
from evals.evaluate.settings import Settings
from evals.shared.results import Evaluation
from gbpo.run.models.agent import tokenizer
from gbpo.run.models.tiny import tiny_decoder
from gbpo.run.output.folder import write_config
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.recipe.parsing import parse
from gbpo.shared.packages import find_recipe

ROOMS = '''
class Room:
    """The model is right if it says the number of its room. The worth of a right answer is that of the row."""

    made, closed = 0, 0

    def __init__(self, worth=1.0):
        Room.made += 1
        self.factor = worth

    def reset(self, number, worth, **row):
        self.number, self.worth, self.said = number, worth, None
        return f"Room {number}."

    def say(self, number: str) -> str:
        """
        Say the number.

        Args:
            number: The number.
        """
        self.said = number
        return "heard"

    def get_reward(self):
        return self.worth * self.factor if self.said == str(self.number) else 0.0

    def close(self):
        Room.closed += 1


class Cave(Room):
    def reset(self, number, worth, **row):
        super().reset(number, worth)
        return f"Cave {number}."

    def shout(self, number: str) -> str:
        """
        Shout the number.

        Args:
            number: The number.
        """
        return self.say(number)


class Fragile(Room):
    """In room 2, every second episode breaks."""

    rewards = 0

    def get_reward(self):
        Fragile.rewards += self.number == 2
        if self.number == 2 and Fragile.rewards % 2:
            raise OSError("the server is gone")
        return super().get_reward()


class Silent(Room, dict):  # a class without a file is in no cache key
    get_reward = property()


def worth_of_the_room(completions, environments, number, **kwargs):
    """A reward that reads the environment of its completion."""
    assert [environment.number for environment in environments] == number
    return [environment.number + 0.5 for environment in environments]
'''
CALL = '<|call|>{}{{"number":"{}"}}<|end|>'
PROMPT = [{"role": "user", "content": "Go. "}]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    tiny_decoder(tokenizer()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """The module of the environments. `rooms.write(text)` replaces it."""

    def load(text):
        (tmp_path / "my_rooms.py").write_text(text)
        monkeypatch.delitem(sys.modules, "my_rooms", raising=False)
        return __import__("my_rooms")

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    load(ROOMS)
    yield load
    sys.modules.pop("my_rooms", None)


@pytest.fixture
def played(monkeypatch):
    """`played(say)`: the model calls a tool in its first turn. `say(place, number)` gives the tool and the number."""

    def script(say=lambda place, number: ("say", number)):
        seen = []

        def generate(model, checkpoint, rows, settings, description, **sampler):
            texts = [checkpoint.tokenizer.decode(row.ids) for row in rows]
            seen.extend(texts)
            return checkpoint.tokenizer([_reply(text, say) for text in texts])["input_ids"]

        monkeypatch.setattr(generation, "_generate", generate)
        return seen

    return script


def _reply(text, say):
    if "<|tool|>" in text:
        return "bye<|end|>"
    _, place, number = text.partition(".<|end|>")[0].removeprefix("<|user|>").split()
    return CALL.format(*say(place, number))


def settings(environment="my_rooms.Room", reward=None, **fields):
    names = {field.name for field in dataclasses.fields(Settings)}
    sampling = {"max_tokens": 80, "samples": 4, "batch_size": 3}
    sampling |= {name: fields.pop(name) for name in names & fields.keys()}
    rewards = {"reward_funcs": reward and [reward]}
    return Settings(RunArguments(dataset_name="made", environment=environment, **rewards, **fields), **sampling)


def numbers(*own, **columns):
    """Rows with rooms. The worth of room n is 1 + n."""
    worth = [1.0 + number for number in own]
    return Dataset.from_dict({"prompt": [PROMPT] * len(own), "number": list(own), "worth": worth, **columns})


def test_every_completion_gets_the_reward_of_its_own_episode(model, rooms, played):
    """Batches of 3 rows divide neither the 4 samples of a question nor all rows."""
    seen = played(lambda place, number: ("say", number if int(number) % 2 else "9"))
    result = evaluate(model, numbers(1, 2, 3, 0), settings(), reference=model)
    assert result.scores == [2.0, 0.0, 4.0, 0.0] == result.greedy
    assert result.correct == [0, 0, 0, 0]  # no reward is 1
    assert result.majority is None and result.unbroken == [4] * 4 and result.broken == 0
    said = '<|call|>say{"number":"1"}<|end|><|tool|>heard<|end|><|assistant|>bye<|end|>'
    assert result.completions[0] == said
    assert seen[0] == "<|user|>Go. Room 1.<|end|><|assistant|>"
    tokens = AutoTokenizer.from_pretrained(model)
    own = said.replace("<|tool|>heard<|end|><|assistant|>", "")  # without the tokens of the environment
    assert result.mean_tokens == len(tokens(own)["input_ids"]) and result.truncated == 0
    assert result.kl_to_start == pytest.approx(0, abs=1e-4)
    module = sys.modules["my_rooms"].Room
    assert module.made == module.closed == 2 + 3  # 2 for the checks, and as many as a batch has rows


def test_the_numbers_by_hand(model, rooms, played):
    """Both rewards are 1 in the rooms 0, and pass@k is that of the rooms with reward 1."""
    rights = iter([True, False, False, False] + [True] * 4 + [True, False])
    played(lambda place, number: ("say", number if next(rights) else "9"))
    result = evaluate(model, numbers(0, 0), settings(batch_size=128))
    assert result.scores == [0.25, 1.0] and result.correct == [1, 4] and result.greedy == [1.0, 0.0]
    lines = dict(line.split(None, 1) for line in summary_lines(result) if "@" in line)
    # pass@2: ((1 − C(3, 2) / C(4, 2)) + 1) / 2 = (1/2 + 1) / 2
    assert lines == {
        "mean@4": "0.6250  95 % interval [0.0000, 1.0000]",
        "pass@1": "0.6250",
        "pass@2": "0.7500",
        "pass@4": "1.0000",
    }


def test_several_environments_by_a_column(model, rooms, played):
    """Each row has the tools of its own environment: in a room, nobody hears a shout."""
    seen = played(lambda place, number: ("shout", number))
    places = ["cave", "room", "cave", "room"]
    both = {"cave": "my_rooms.Cave", "room": "my_rooms.Room"}
    result = evaluate(
        model,
        numbers(1, 2, 3, 4, environment=places),
        settings(both, environment_kwargs={"cave": {"worth": 10.0}}),
    )
    assert result.scores == [20.0, 0.0, 40.0, 0.0] == result.greedy
    assert "Tool shout not found" in result.completions[1] and "not found" not in result.completions[0]
    assert {text.split(".<")[0] for text in seen} == {
        f"<|user|>Go. {p}" for p in ("Cave 1", "Room 2", "Cave 3", "Room 4")
    }


def test_broken_episodes_count_nowhere(model, rooms, played):
    played()
    result = evaluate(model, numbers(1, 2), settings("my_rooms.Fragile"))
    # in room 2, the rewards 1 and 3 of the samples break, and the greedy reward 5 too
    assert result.scores == [2.0, 3.0] and result.unbroken == [4, 2] and result.greedy == [2.0]
    assert result.broken == 3
    lines = summary_lines(result)
    assert [line for line in lines if "broken" in line] == [
        "broken        3 episodes, which are left out of all other numbers"
    ]
    assert not any(line.startswith("pass@4") for line in lines) and any(line.startswith("pass@2") for line in lines)


def test_a_question_whose_episodes_are_all_broken_ends_the_evaluation(model, rooms, played):
    played()
    rooms(ROOMS.replace("Fragile.rewards % 2", "True"))
    with pytest.raises(ValueError, match=r"All 4 episodes of question 1 are broken, the first because get_reward "):
        evaluate(model, numbers(1, 2), settings("my_rooms.Fragile"))


def test_another_reward_reads_the_environments(model, rooms, played):
    played()
    result = evaluate(model, numbers(1, 2, 3), settings(reward="my_rooms.worth_of_the_room"))
    assert result.scores == [1.5, 2.5, 3.5] == result.greedy


def test_an_environment_without_a_reward_needs_another(model, rooms, played):
    played()
    with pytest.raises(ValueError, match="Silent has no method get_reward.*Write --reward"):
        evaluate(model, numbers(1, 2), settings("my_rooms.Silent"))
    assert evaluate(model, numbers(1), settings("my_rooms.Silent", "my_rooms.worth_of_the_room")).scores == [1.5]


def test_the_cache_depends_on_the_environment(model, rooms, played, capsys):
    seen = played()

    def computed(environment="my_rooms.Room", **fields):
        before = len(seen)
        evaluate(model, numbers(1, 2), settings(environment, **fields))
        assert ("cached" in capsys.readouterr().out) == (len(seen) == before)
        return len(seen) > before

    assert computed() and not computed()
    assert computed(environment_kwargs={"worth": 2.0})
    assert computed("my_rooms.Cave")
    rooms(ROOMS.replace("self.worth * self.factor", "self.worth / self.factor"))
    assert computed() and not computed()


def test_the_cache_covers_the_base_class_of_another_file(model, rooms, played, tmp_path, capsys):
    seen = played()
    (tmp_path / "own_room.py").write_text("from my_rooms import Room\n\nclass Own(Room):\n    pass\n")
    evaluate(model, numbers(1), settings("own_room.Own"))
    before = len(seen)
    sys.modules.pop("own_room")
    rooms(ROOMS + "\n# another version\n")
    evaluate(model, numbers(1), settings("own_room.Own"))
    assert len(seen) > before
    sys.modules.pop("own_room")


@pytest.mark.slow
def test_a_run_in_an_environment_is_evaluated_as_it_was_trained(rooms, tmp_path, capsys):
    """A model acts in the environment of the demo at random. Here each letter that the model asks for is worth 1."""
    rooms(ASKED)
    run = tmp_path / "run"
    acting.save(run / "model")
    flags = ["--environment=my_rooms.Asked", "--dataset_kwargs={size: 12, seed: 0}"]
    write_config(run, parse([str(find_recipe("tiny_environment")), *flags]), step=0)
    command.main([str(run), "--samples=1", "--batch_size=5", f"--output={tmp_path / 'out.json'}"])
    printed = capsys.readouterr().out
    (written,) = json.loads((tmp_path / "out.json").read_text())
    found, settings = Evaluation(**written["evaluation"]), written["settings"]
    assert settings["environment"] == "my_rooms.Asked" and settings["temperature"] == 1.0
    assert (settings["max_tokens"], settings["tool_turns"]) == (64, 8)
    assert found.scores == [len(re.findall(r"<\|tool\|>[a-h]<", text)) for text in found.completions]
    assert len(found.scores) == 12 and len(set(found.scores)) > 1 and found.broken == 0
    for word in ("mean@1", "pass@1", "greedy", "truncated"):
        assert word in printed
    assert "majority" not in printed and "broken" not in printed


ASKED = """
from gbpo.run.environments.code_word import CodeWord

class Asked(CodeWord):
    def get_reward(self):
        return float(self._revealed)
"""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "vllm"}, "engine='vllm' with environment='my_rooms.Room'.*Write engine='transformers'"),
        ({"environment": "verifiers:gsm8k"}, "environment='verifiers:gsm8k'.*eval_strategy: steps"),
    ],
)
def test_refusals(fields, words):
    with pytest.raises(ValueError, match=words):
        settings(**fields)
