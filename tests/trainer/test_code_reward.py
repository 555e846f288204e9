"""A training step on programs that really run: statuses in the metrics and in the completions table."""

import pytest
from datasets import Dataset

from rewards import get_reward

RIGHT = "```python\ndef f(x): return x*3+1\n```"
WRONG = "```python\ndef f(x): return x*3+2\n```"
HANGS = "```python\nwhile True: pass\n```"
BARE = "def f(x): return x*3+1"


@pytest.mark.parametrize("rewards", [["code"], ["code", "boxed"], ["code", "math"]])
def test_programs_are_run_and_graded(make_trainer, rewards):
    def rollout(prompts, trainer):
        texts = [RIGHT, WRONG, HANGS, BARE, RIGHT, RIGHT, WRONG, WRONG][: len(prompts)]
        tokenizer = trainer.processing_class
        return {
            "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": [tokenizer(text)["input_ids"] for text in texts],
            "logprobs": None,
        }

    tests = ["assert f(1) == 4\nassert f(-2) == -5", None]  # the second prompt's programs cannot be graded
    trainer = make_trainer(
        reward_funcs=[get_reward(name, **({"workers": 2, "seconds": 1} if name == "code" else {})) for name in rewards],
        dataset=Dataset.from_dict({"prompt": ["a", "b"], "tests": tests, "solution": [None, None]}),
        max_completion_length=64,
        max_steps=1,
        shuffle_dataset=False,
        trainer={"rollout_func": rollout},
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/code/ok"] == logged["rewards/code/wrong"] == logged["rewards/code/timeout"] == 1 / 8
    assert logged["rewards/code/unparsed"] == 1 / 8 and logged["rewards/code/no_gold"] == 4 / 8
    assert logged["rewards/code/missing_layers"] == 0
    assert logged["rewards/code/mean"] == 1 / 4  # of the four that count
    table = trainer._logs["extra"]
    assert list(table["code/status"]) == ["ok", "wrong", "timeout", "unparsed"] + ["no_gold"] * 4
