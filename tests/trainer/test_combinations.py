"""Tools, environments and images together with each other, with `difficulty` and with resampling.

The turns of the model are given, so that the calls and the rewards are known: in each group the completions 0 and 2
call `add` with the number of their prompt, 1 and 3 do not.
"""

import re
from itertools import chain

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

import pictures
from gbpo import GBPOTrainer
from gbpo.run.models import tiny_vision, tool_chat
from gbpo.run.models.tiny import tiny_decoder
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig

SEVERAL = {0, 2, 4, 6}  # prompts whose completions get different rewards
GRPO = {"algorithm": "grpo", "base": BaseTrainer, "config_class": BaseConfig}
ANSWER = "<|tool|>{}<|end|><|assistant|>"


def add(a: int, b: int) -> int:
    """
    Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def reward(completions, number, **columns):
    """1 for a completion with a call, if its prompt is one of `SEVERAL`; otherwise 1 for all."""
    called = [any(message["role"] == "tool" for message in completion) for completion in completions]
    return [float(call or prompt not in SEVERAL) for call, prompt in zip(called, number, strict=True)]


class Counter:
    """An environment with the same tool, the same rewards and the same prompts."""

    def reset(self, number: int, **row) -> str:
        self.number, self.called = number, False
        return "!"

    def add(self, a: int, b: int) -> int:
        """
        Add two numbers.

        Args:
            a: The first.
            b: The second.
        """
        self.called = True
        return a + b

    def get_reward(self) -> float:
        return float(self.called or self.number not in SEVERAL)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """Folder of a tiny decoder that reads tools."""
    tokenizer, folder = tool_chat.tool_tokenizer(), tmp_path_factory.mktemp("text_model")
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory):
    """Folder of a tiny Qwen2.5-VL that reads images and tools, and its processor."""
    processor, folder = tiny_vision.tiny_processor(), tmp_path_factory.mktemp("seeing_model")
    calls = re.search(r"{% for call.*?{% endfor %}", tool_chat._CHAT_TEMPLATE)[0]
    template = processor.chat_template.replace("{{ '<|end|>' }}", calls + "{{ '<|end|>' }}")
    processor.tokenizer.add_tokens([tool_chat._CALL, tool_chat._ANSWER], special_tokens=True)
    processor.chat_template = processor.tokenizer.chat_template = template
    processor.tokenizer.response_template = tool_chat._RESPONSE_TEMPLATE
    tiny_vision.tiny_qwen_vl(processor.tokenizer).save_pretrained(folder)
    return str(folder), processor


def rows(images=False, count=8):
    """Prompts `0?`, `1??` and so on, which differ in length. Prompt i has 1 + i % 3 images."""
    numbers = list(range(count))
    texts = [f"{i}{'?' * (1 + i)}" for i in numbers]
    if not images:
        return Dataset.from_dict({"prompt": [[{"role": "user", "content": t}] for t in texts], "number": numbers})
    seen = [[pictures.picture(3 * i + k) for k in range(1 + i % 3)] for i in numbers]
    contents = [
        [{"type": "image", "text": None}] * len(some) + [{"type": "text", "text": text}]
        for some, text in zip(seen, texts, strict=True)
    ]
    part = {"type": Value("string"), "text": Value("string")}
    features = Features(
        {
            "prompt": List({"role": Value("string"), "content": List(part)}),
            "images": List(Image()),
            "number": Value("int64"),
        }
    )
    prompts = [[{"role": "user", "content": content}] for content in contents]
    return Dataset.from_dict({"prompt": prompts, "images": seen, "number": numbers}, features)


@pytest.fixture
def make(make_trainer, text_model, seeing_model, monkeypatch):
    """`make(kind, **config)`: a trainer whose turns are given. `kind`: tools, environment, images or two of them."""

    def build(kind, algorithm="gbpo", **config):
        model, processor = seeing_model if "images" in kind else (text_model, None)
        trainer = {"processing_class": processor} if processor else {}
        if "tools" in kind:
            trainer["tools"] = [add]
        if "environment" in kind:
            trainer["environment_factory"] = Counter
        made = make_trainer(
            algorithm,
            model=model,
            reward_funcs=None if "environment" in kind else by_length if kind == "images" else reward,
            dataset=rows(images="images" in kind),
            trainer=trainer,
            **{"max_completion_length": 48, "max_steps": 2, "per_device_train_batch_size": 8} | config,
        )

        def given(prompt_ids, *args, **kwargs):
            texts = [made._tokenizer.decode(ids) for ids in prompt_ids]
            turns = [turn(text, i, calls=kind != "images") for i, text in enumerate(texts)]
            return [made._tokenizer(one)["input_ids"] for one in turns], None

        monkeypatch.setattr(made, "_generate_single_turn", given)
        return made

    return build


def turn(text, i, *, calls):
    """The turn of the assistant after a text. Its length depends on the place in the batch."""
    number = number_of(text)
    if calls and "<|tool|>" not in text and i % 2 == 0:
        return f'<|call|>add{{"a":{number},"b":2}}<|end|>'
    return "s" * (1 + i % 4) + "<|end|>"


def number_of(text):
    return int(re.search(r"(\d)\?", text)[1])


def by_length(completions, number, **columns):
    """The same rewards as `reward`, for completions without calls: the places 0 and 2 write an odd number of s."""
    odd = [len(completion[0]["content"]) % 2 == 1 for completion in completions]
    return [float(one or prompt not in SEVERAL) for one, prompt in zip(odd, number, strict=True)]


def scored(trainer, *numbers):
    """The scored batch of groups of 4 of these prompts, and the number of the prompt of each row."""
    trainer.model.train()
    chosen = [row for number in numbers for row in [dict(trainer.train_dataset[number])] * 4]
    batch = trainer._generate_and_score_completions(chosen)
    return batch, [number_of(text) for text in trainer._tokenizer.batch_decode(batch["prompt_ids"])]


def written_by_tools(trainer, batch):
    """The text of each completion that the loss leaves out."""
    left_out = batch["completion_mask"].bool() & (batch["tool_mask"] == 0)
    return [trainer._tokenizer.decode(ids[mask]) for ids, mask in zip(batch["completion_ids"], left_out, strict=True)]


@pytest.mark.parametrize("kind", ["tools", "environment"])
@pytest.mark.parametrize("algorithm", [{}, GRPO], ids=["gbpo", "grpo"])
def test_resampled_rows_keep_what_their_tools_wrote(make, kind, algorithm):
    """The prompts 1 and 3 have no signal. Others take their place, with the answers of their own tools masked."""
    trainer = make(kind, **algorithm, resample_zero_signal_groups=True)
    trainer.take_tool_timeouts = iter([5]).__next__
    batch, prompts = scored(trainer, 1, 2, 3)
    assert trainer._metrics["train"]["gbpo/tool_timeouts"] == [5]  # read once, after the last draw
    assert set(prompts) <= SEVERAL and prompts[4:8] == [2] * 4
    assert len({*prompts}) > 1 and trainer._metrics["train"]["gbpo/groups_without_signal"] == [0]
    expected = ["" if i % 2 else ANSWER.format(number + 2) for i, number in enumerate(prompts)]
    assert written_by_tools(trainer, batch) == expected
    assert batch["num_items_in_batch"] == (batch["completion_mask"] * batch["tool_mask"]).sum()
    assert (batch["advantages"].view(-1, 2) > 0).tolist() == [[True, False]] * 6
    if isinstance(trainer, GBPOTrainer):
        assert ((batch["target_ratio"] > 1) == (batch["advantages"] > 0)).all()


@pytest.mark.parametrize("kind", ["images and tools", "images and environment"])
def test_completions_with_calls_keep_their_images(make, kind, gradient, distance):
    """The model samples the second turns, and sees the images of their prompts then and in the loss.

    The loss is that of the formula, over the log-probs of the model with these images.
    """
    trainer = make(kind, loss_type="bnpo", exact_speedups=["none"])
    given, later = trainer._generate_single_turn, []

    def second_turn_sampled(prompt_ids, images, fields, *args, **options):
        if len(prompt_ids) == 8:
            return given(prompt_ids)
        later.append(fields["pixel_values"])
        return type(trainer)._generate_single_turn(trainer, prompt_ids, images, fields, *args, **options)

    trainer._generate_single_turn = second_turn_sampled
    batch, prompts = scored(trainer, 2, 4)
    assert written_by_tools(trainer, batch) == ["" if i % 2 else ANSWER.format(n + 2) for i, n in enumerate(prompts)]
    assert batch["num_images"] == [3] * 4 + [2] * 4
    processor = trainer.processing_class.image_processor
    images = [image for number in prompts for image in trainer.train_dataset[number]["images"]]
    seen = processor(images=images, return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"], seen["pixel_values"], atol=0, rtol=0)
    of_callers = [image for number in prompts[::2] for image in trainer.train_dataset[number]["images"]]
    expected = processor(images=of_callers, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(later, [expected], atol=0, rtol=0)

    own = batch["completion_mask"] * batch["tool_mask"]
    model, ids = trainer.model, torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        "mm_token_type_ids": (ids == trainer.processing_class.image_token_id).int(),
    }
    rng = torch.Generator().manual_seed(0)
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + 0.2 * torch.randn(own.shape, generator=rng)

    def reference(seen):
        logits = model(**inputs, **seen).logits[:, :-1]
        logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -own.size(1) :]
        ratio = (logps - batch["old_per_token_logps"]).exp()
        error = (ratio - batch["target_ratio"][:, None]).abs() * batch["advantages"].abs()[:, None]
        model.zero_grad()
        ((error * own).sum() / own.sum()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    actual = gradient(trainer, batch)[1]
    assert distance(actual, reference(seen)) < 1e-5
    others = seen | {"pixel_values": seen["pixel_values"].flip(0)}
    assert distance(reference(others), actual) > 1e-3


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["tools", "environment", "images", "images and tools", "images and environment"])
def test_difficulty_leaves_out_what_is_always_solved(make, kind):
    """The odd prompts are always solved, the even ones in half of their completions."""
    trainer = make(kind, difficulty={"low": 0.1, "high": 0.9, "revisit": 0.0}, num_iterations=1, max_steps=8)
    used, score = [], trainer._scored

    def record(inputs):
        used.append([row["number"] for row in inputs][::4])
        return score(inputs)

    trainer._scored = record
    trainer.train()
    first, later = [*chain(*used[:4])], [*chain(*used[4:])]
    assert sorted(first) == list(range(8))
    assert set(later) == SEVERAL
    assert trainer.curriculum.rates.tolist() == [0.5 if number in SEVERAL else 1.0 for number in range(8)]
