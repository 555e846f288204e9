"""Tools and environments: TRL calls Python functions, and the tokens of their answers have no loss.

A random model never writes a tool call, so in every second completion the first turn is replaced by one. TRL parses and
calls it and masks the answer. The model samples the second turn itself.
"""

import json
from pathlib import Path

import pandas
import pytest
import torch
from datasets import Dataset
from trl.chat_template_utils import qwen2_5_chat_template

import calling
from gbpo.run.models.tool_chat import tool_tokenizer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig

ANSWER = "\n<|im_start|>user\n<tool_response>\n{}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
TAGS = ["<|im_start|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
QUESTIONS = [f"What is {i} plus 2?" for i in range(2)]


@pytest.fixture(scope="module")
def calling_model(tmp_path_factory):
    """Folder of the tiny decoder with Qwen2.5's chat template, which supports tools, and its end token."""
    from gbpo.run.models.tiny import character_tokenizer, tiny_decoder

    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.add_tokens(TAGS, special_tokens=True)  # single tokens, as in Qwen
    tokenizer.chat_template = qwen2_5_chat_template
    folder = tmp_path_factory.mktemp("calling_model")
    tiny_decoder(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def with_calls(make_trainer, calling_model, monkeypatch):
    """`with_calls(**trainer)`: a trainer; its completions i = 0, 2, 4 and 6 begin with the call `add(i, 2)`."""

    def make(reward_funcs=None, **trainer):
        made = make_trainer(
            model=calling_model,
            reward_funcs=reward_funcs,
            dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": question}] for question in QUESTIONS]}),
            trainer=trainer,
            max_completion_length=120,
            loss_type="bnpo",
            max_steps=2,
            exact_speedups=["none"],  # the tests read the old log-probs before the first pass
        )
        single_turn = made._generate_single_turn

        def first_turn_calls(prompt_ids, *args, **kwargs):
            completions, logprobs = single_turn(prompt_ids, *args, **kwargs)
            if "<tool_response>" not in made.processing_class.decode(prompt_ids[0]):
                for i in range(0, len(completions), 2):
                    call = f'<tool_call>\n{{"name": "add", "arguments": {{"a": {i}, "b": 2}}}}\n</tool_call><|im_end|>'
                    completions[i] = made.processing_class(call)["input_ids"]
            return completions, logprobs

        monkeypatch.setattr(made, "_generate_single_turn", first_turn_calls)
        return made

    return make


@pytest.mark.parametrize("arguments", [({}, {}), ({"a": 1}, {"a": "x"})])
def test_calls_in_prompts_fit_into_the_table_without_tools(make_trainer, calling_model, arguments):
    """Parquet has no object without keys, and one type per key."""
    calls = [{"type": "function", "function": {"name": "add", "arguments": one}} for one in arguments]
    asked, answered = {"role": "user", "content": "2?"}, {"role": "tool", "content": "2"}
    prompts = [[asked, {"role": "assistant", "content": "", "tool_calls": [call]}, answered] for call in calls]
    rows = Dataset.from_dict({"prompt": prompts}, on_mixed_types="use_json")
    trainer = make_trainer(model=calling_model, dataset=rows, max_steps=1, log_completions=True)
    trainer.train()
    (table,) = (Path(trainer.args.output_dir) / "completions").glob("*.parquet")
    logged = [prompt[1]["tool_calls"][0]["function"]["arguments"] for prompt in pandas.read_parquet(table).prompt]
    assert set(logged) == {json.dumps(one) for one in arguments}


@pytest.fixture
def adding():
    """A tool, and the list of its calls."""
    calls = []

    def add(a: int, b: int) -> int:
        """
        Add two numbers.

        Args:
            a: The first.
            b: The second.

        Returns:
            Their sum.
        """
        calls.append((a, b))
        if a == 6:
            raise ArithmeticError("too hard")
        return a + b

    return add, calls


def used_the_tool(completions, **kwargs):
    """1 for a call with an answer, 0.5 for a call that failed, 0 or 0.1 without a call."""
    contents = [[m["content"] for m in completion if m["role"] == "tool"] for completion in completions]
    return [0.1 * (i % 4 == 1) if not c else 0.5 if "error" in c[0] else 1.0 for i, c in enumerate(contents)]


def rows():
    return [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS for _ in range(4)]


def test_the_tool_is_called_and_its_answer_is_masked(with_calls, adding):
    tool, calls = adding
    trainer = with_calls(used_the_tool, tools=[tool])
    trainer.model.train()
    batch = trainer._generate_and_score_completions(rows())
    assert calls == [(0, 2), (2, 2), (4, 2), (6, 2)]
    answers = {0: "2", 2: "4", 4: "6", 6: "{'error': 'too hard'}"}
    for i in range(8):
        written = batch["completion_mask"][i].bool()
        masked = written & (batch["tool_mask"][i] == 0)
        text = trainer.processing_class.decode(batch["completion_ids"][i][masked])
        assert text == (ANSWER.format(answers[i]) if i in answers else "")
        own = batch["completion_ids"][i][written & ~masked]
        assert len(own) > 0
        if i in answers:  # the call and the second turn
            assert trainer.processing_class.decode(own).startswith("<tool_call>")
            assert masked.nonzero().max() < written.nonzero().max()
    # groups of rewards 1, 0.1, 1, 0 and 1, 0.1, 0.5, 0
    assert batch["target_ratio"].tolist() == pytest.approx([1.2, 0.8, 1.2, 0.8, 1.2, 0.8, 1.2, 0.8], abs=1e-5)
    assert trainer._metrics["train"]["tools/call_frequency"] == [0.5]
    assert trainer._metrics["train"]["tools/failure_frequency"] == [0.25]


def reference(trainer, batch, mask):
    """Loss and gradient over the tokens in `mask`, from the logits and the formula in the README."""
    model = trainer.model
    model.zero_grad()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].size(1)
    hidden = model.model(input_ids=ids, attention_mask=attention).last_hidden_state[:, -width - 1 : -1]
    logps = model.lm_head(hidden).log_softmax(-1).gather(-1, ids[:, -width:, None]).squeeze(-1)
    ratio = (logps - batch["old_per_token_logps"]).exp()
    error = (ratio - batch["target_ratio"][:, None]).abs() * batch["advantages"].abs()[:, None]
    loss = (error * mask).sum() / mask.sum()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
def test_tokens_of_the_tool_have_no_loss(with_calls, adding, gradient, distance):
    trainer = with_calls(used_the_tool, tools=[adding[0]])
    trainer.model.train()
    batch = trainer._generate_and_score_completions(rows())
    rng = torch.Generator().manual_seed(0)
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + 0.2 * torch.randn(
        batch["completion_ids"].shape, generator=rng
    )
    loss, actual = gradient(trainer, batch)
    own = batch["completion_mask"] * batch["tool_mask"]
    expected_loss, expected = reference(trainer, batch, own)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert distance(actual, expected) < 1e-5
    _, with_answers = reference(trainer, batch, batch["completion_mask"])
    assert distance(with_answers, expected) > 1e-2
    # Log-probs of the answer's tokens do not change the loss.
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + 3.0 * (1 - batch["tool_mask"])
    assert gradient(trainer, batch)[0] == loss


@pytest.mark.slow
def test_fast_passes_train_as_trl_does(make_trainer, calling_model, adding, distance, grpo_limit, monkeypatch):
    """All turns are given, so that TRL's GRPO, the baseline with speedups and GBPO train on the same completions."""

    def change(algorithm, **config):
        made = make_trainer(
            algorithm,
            model=calling_model,
            reward_funcs=used_the_tool,
            dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": question}] for question in QUESTIONS]}),
            trainer={"tools": [adding[0]]},
            max_completion_length=120,
            max_steps=4,
            optim="sgd",
            learning_rate=0.5,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            **config,
        )

        def given(prompt_ids, *args, **kwargs):
            later = "<tool_response>" in made.processing_class.decode(prompt_ids[0])
            call = '<tool_call>\n{{"name": "add", "arguments": {{"a": {}, "b": 2}}}}\n</tool_call><|im_end|>'
            texts = [
                "sum" + "!" * i + "<|im_end|>" if later or i % 2 else call.format(i) for i in range(len(prompt_ids))
            ]
            return [made.processing_class(text)["input_ids"] for text in texts], None

        monkeypatch.setattr(made, "_generate_single_turn", given)
        before = torch.cat([p.detach().flatten().clone() for p in made.model.parameters()])
        made.train()
        return torch.cat([p.detach().flatten() for p in made.model.parameters()]) - before

    trl = change("grpo")
    assert trl.norm() > 1e-2
    assert distance(change("grpo", base=BaseTrainer, config_class=BaseConfig, exact_speedups=["all"]), trl) < 1e-5
    assert distance(change("gbpo", exact_speedups=["all"], **grpo_limit), trl) < 1e-5


@pytest.mark.slow
def test_training_with_tools(with_calls, adding):
    trainer = with_calls(used_the_tool, tools=[adding[0]])
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert len(adding[1]) == 4  # two steps on one generation
    assert trainer.state.log_history[0]["tools/call_frequency"] == 0.5
    assert any((a != b).any() for a, b in zip(trainer.model.parameters(), before, strict=True))


class Counter:
    """An environment whose reward is the sum of what was added."""

    def reset(self, **kwargs):
        self.total = 0.0

    def add(self, a: int, b: int) -> str:
        """
        Count further.

        Args:
            a: A number.
            b: Another.

        Returns:
            What was counted.
        """
        self.total += a + b
        return f"counted {self.total:g}"

    def get_reward(self) -> float:
        return self.total


def test_an_environment_gives_its_own_reward(with_calls):
    """Each completion has its own environment: the sums are 2 and 4 in the first group, 6 and 8 in the second."""
    trainer = with_calls(environment_factory=Counter)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(rows())
    assert trainer._metrics["train"]["rewards/Counter/mean"] == [20 / 8]
    answer = batch["completion_ids"][2][(batch["tool_mask"][2] == 0) & batch["completion_mask"][2].bool()]
    assert trainer.processing_class.decode(answer) == ANSWER.format("counted 4")
    # rewards 2, 0, 4, 0 and 6, 0, 8, 0: the medians are 1 and 3
    assert batch["target_ratio"].tolist() == pytest.approx([1.2, 0.8, 1.2, 0.8, 1.2, 0.8, 1.2, 0.8], abs=1e-5)


def test_extra_votes_are_refused(with_calls, adding):
    """Extra rounds of generation would call the tools again, which may keep the changes of the first round."""
    used_the_tool_with_votes = type("Reward", (), {"votes": 8, "__name__": "votes", "__call__": used_the_tool})()
    with pytest.raises(ValueError, match=r"asks for 1 more round\(s\) of votes.* Remove the votes or the tools"):
        with_calls(used_the_tool_with_votes, tools=[adding[0]])


@pytest.mark.slow
def test_vllm_samples_every_turn(make_with_vllm, adding, engine, monkeypatch, tmp_path):
    """The check of the weights and the importance ratios leave out the tokens that the tool wrote."""

    def until_the_end(*args, **kwargs):
        outputs = generate(*args, **kwargs)
        for output in outputs:
            (one,) = output.outputs
            length = one.token_ids.index(end) + 1 if end in one.token_ids else len(one.token_ids)
            one.token_ids, one.logprobs = one.token_ids[:length], one.logprobs[:length]
        return outputs

    generate, end = engine.generate, tool_tokenizer().eos_token_id
    monkeypatch.setattr(engine, "generate", until_the_end)
    questions = [[{"role": "user", "content": f"{i}+2="}] for i in range(8)]
    trainer = make_with_vllm(
        model=calling.save(tmp_path / "model"),
        dataset=Dataset.from_dict({"prompt": questions}),
        trainer={"tools": [adding[0]]},
        max_completion_length=24,
        max_steps=2,
        exact_speedups=["trim_padding", "arrange_rows", "share_prompts"],  # every row runs, with a signal or not
    )
    trainer.reward_funcs = [used_the_tool]
    trainer.train()
    assert len(adding[1]) > 2
    for row in trainer.state.log_history[:2]:
        assert row["tools/call_frequency"] > 0
        assert row["gbpo/vllm_logp_gap"] < 1e-4
        assert row["sampling/importance_sampling_ratio/min"] > 0.99
