"""A training step with the `code` reward, which runs programs: its statuses are in the metrics and the table."""

import pytest
from datasets import Dataset

from rewards import get_reward
from rollouts import rollout_of

RIGHT = "```python\ndef f(x): return x*3+1\n```"
WRONG = "```python\ndef f(x): return x*3+2\n```"
HANGS = "```python\nwhile True: pass\n```"
BARE = "def f(x): return x*3+1"


@pytest.mark.sweep
@pytest.mark.parametrize("rewards", [["code"], ["code", "boxed"], ["code", "math"]])
def test_programs_are_run_and_graded(make_trainer, rewards):
    def rollout(prompts, trainer):
        texts = [RIGHT, WRONG, HANGS, BARE, RIGHT, RIGHT, WRONG, WRONG][: len(prompts)]
        return rollout_of(trainer, prompts, [trainer.processing_class(text)["input_ids"] for text in texts])

    tests = [
        "assert f(1) == 4\nassert f(-2) == -5",
        None,
    ]  # without tests, programs cannot be graded
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
    assert logged["rewards/code/mean"] == 1 / 4  # over the four graded programs
    table = trainer._logs["extra"]
    assert list(table["code/status"]) == ["ok", "wrong", "timeout", "unparsed"] + ["no_gold"] * 4
