"""The settings of an evaluation: the questions, the reward and the sampling."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gbpo.run.recipe.arguments import TOOL_TURNS, VERIFIERS, RunArguments
from gbpo.shared.packages import install_command

if TYPE_CHECKING:
    from gbpo.run.data.prompts import PromptFormat

TOOL_FIELDS = ("tools", "tool_timeout", "tool_turns")
ENGINES = ("auto", "vllm", "transformers")
_IN_TRAINING = "To evaluate in training instead, write eval_strategy: steps in the recipe."


@dataclass(frozen=True)
class Settings:
    """Questions, reward and sampling of an evaluation.

    Args:
        run: Data set, prompt and reward, as in a recipe. Exactly one reward.
        chat_template_kwargs: Variables of the chat template, as in a recipe.
        samples: Completions per question, k.
        temperature: Sampling temperature.
        top_p: Probability mass of nucleus sampling. Top-k, min-p and penalties are not used.
        max_tokens: Maximum number of tokens per completion.
        seed: Seed of the sampling. The same seed gives the same completions on the same machine with the same
            `batch_size`.
        batch_size: Completions per batch with transformers. vLLM chooses its own batches.
        engine: `"vllm"`, `"transformers"` or `"auto"`: vLLM if it is installed and there is an accelerator, otherwise
            transformers. After creation, the field contains the chosen engine instead of `"auto"`. Tools,
            environments and images need transformers.
        tool_turns: Turns in which a completion may call tools or act in its environment.

    Raises:
        ValueError: A value is out of range, or the engine is not installed.
    """

    run: RunArguments
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    samples: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 1024
    seed: int = 0
    batch_size: int = 128
    engine: str = "auto"
    tool_turns: int | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves nothing to evaluate. Write 1 or more.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature:g} does not define a sampling distribution. Write a positive number. "
                "The score of greedy decoding is printed at any temperature."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p:g} leaves no tokens to sample from. Write a number above 0 and at most 1."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and 2**32 - 1, got {self.seed}.")
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} is unknown. Write one of {', '.join(ENGINES)}.")
        if len(self.run.reward_funcs or []) > 1:
            raise ValueError(
                f"reward_funcs={self.run.reward_funcs}: an evaluation has a single score. Write only one reward."
            )
        if str(self.run.environment).startswith(VERIFIERS):
            raise ValueError(
                f"environment={self.run.environment!r}: evals.evaluate and evals.compare do not run the tasks of "
                f"{VERIFIERS}, so there would be no test. {_IN_TRAINING}"
            )
        turns = next((name for name in ("environment", "tools") if getattr(self.run, name)), None)
        if turns and self.run.image_column is not None:
            raise ValueError(
                f"image_column={self.run.image_column!r} with {turns}={getattr(self.run, turns)!r}: evals.evaluate and "
                f"evals.compare read images only in prompts with one turn, so there would be no test. {_IN_TRAINING}"
            )
        special = turns or ("image_column" if self.run.image_column is not None else None)
        if special and self.engine == "vllm":
            raise ValueError(
                f"engine='vllm' with {special}={getattr(self.run, special)!r}: an evaluation of tools, environments "
                "and images generates only with transformers. Write engine='transformers'."
            )
        object.__setattr__(self, "engine", "transformers" if special else _choose_engine(self.engine))
        if turns and self.tool_turns is None:
            object.__setattr__(self, "tool_turns", TOOL_TURNS)

    @property
    def prompts(self) -> PromptFormat:
        """The format of the prompts."""
        from gbpo.run.data.prompts import PromptFormat  # loads datasets
        from gbpo.run.tools.named_tools import schemas

        run, kwargs = self.run, self.chat_template_kwargs
        return PromptFormat(run.system_prompt, run.prompt_template, run.chat_template_path, kwargs, schemas(run))

    def as_dict(self) -> dict[str, Any]:
        """The settings by name: questions, prompts, reward and sampling."""
        read = {name: getattr(self.run, name) for name in (*QUESTION_FIELDS, "reward_funcs", "reward_kwargs")}
        read |= {name: getattr(self, name) for name in ("chat_template_kwargs", *SAMPLING)}
        turns = self.run.tools or self.run.environment
        return {name: value for name, value in read.items() if turns or name not in TOOL_FIELDS}


# The fields of `Settings` that describe the sampling
SAMPLING = tuple(one.name for one in dataclasses.fields(Settings) if one.name not in ("run", "chat_template_kwargs"))

# The fields of a recipe that an evaluation does not read, or reads under the names of its own options
_OTHER_FIELDS = {
    "algorithm",
    "dataset_test_split",
    "eval_dataset_name",
    "reward_funcs",
    "reward_kwargs",
    "dry_run",
    "merge_adapter",
    "stop_on_collapse",
}
# The fields of a recipe that choose the questions and shape their prompts
QUESTION_FIELDS = tuple(one.name for one in dataclasses.fields(RunArguments) if one.name not in _OTHER_FIELDS)


def _choose_engine(requested: str) -> str:
    installed = find_spec("vllm") is not None
    if requested == "vllm" and not installed:
        raise ValueError(
            f"engine='vllm' is not installed. Run {install_command('vllm')}, or write engine='transformers'."
        )
    if requested != "auto":
        return requested
    if not installed:
        return "transformers"
    import torch

    return "vllm" if torch.accelerator.is_available() else "transformers"
