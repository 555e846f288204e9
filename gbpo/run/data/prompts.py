"""How a prompt of the data set becomes the tokens that the model reads, in training and in every evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..rewards_package import rewards_module
from ..tools.named_tools import schemas

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..recipe.parsing import Recipe  # which loads TRL

# TRL passes these to `apply_chat_template`, so `chat_template_kwargs` cannot contain them
_SET_BY_TRAINER = {"chat_template": None, "add_generation_prompt": True, "return_dict": True}
_NOT_FOR_RECIPES = {*_SET_BY_TRAINER, "tools", "tokenize", "messages", "conversation", "continue_final_message"}


@dataclass(frozen=True)
class PromptFormat:
    """The fields of a recipe that turn a prompt of the data set into the tokens that the model reads.

    Training, the evaluation in training, votes, `evals.evaluate`, `evals.compare` and the dry run all use this value.

    Args:
        system_prompt: System message before every prompt. Without a chat template, text before the prompt.
        prompt_template: Text around the prompt. `{prompt}` marks where the prompt goes. If the prompt of a row is a
            list of messages, the text goes around the last message.
        chat_template_path: File with the chat template, if it replaces the tokenizer's.
        chat_template_kwargs: Variables of the chat template, for example `{"enable_thinking": False}`.
        tools: Descriptions of the tools, which the chat template may write into the prompt.
    """

    system_prompt: str | None = None
    prompt_template: str | None = None
    chat_template_path: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        taken = [name for name in self.chat_template_kwargs if name in _NOT_FOR_RECIPES]
        if taken:
            raise ValueError(
                f"chat_template_kwargs={dict(self.chat_template_kwargs)} contains {', '.join(taken)}, which the "
                "trainer itself gives to the chat template. Remove it."
            )

    @classmethod
    def of(cls, recipe: "Recipe") -> "PromptFormat":
        """The format of a recipe's prompts."""
        run, kwargs = recipe.run, recipe.training.chat_template_kwargs or {}
        return cls(run.system_prompt, run.prompt_template, run.chat_template_path, kwargs, schemas(run))

    def format(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
        """The data set with prompts as messages if the tokenizer has a chat template, else as text."""
        prompts = [self.formatted(prompt, tokenizer) for prompt in dataset["prompt"]]
        return rewards_module("shared.columns").with_column(dataset, "prompt", prompts)

    def formatted(self, prompt: Any, tokenizer: "PreTrainedTokenizerBase") -> Any:
        """The prompt of one row as messages or as text."""
        if isinstance(prompt, str) and tokenizer.chat_template is None:
            return "\n\n".join(filter(None, [self.system_prompt, self._in_template(prompt)]))
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        *earlier, last = messages
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, *earlier, {**last, "content": self._in_template(last["content"])}]

    def _in_template(self, text: Any) -> Any:
        return text if self.prompt_template is None else self.prompt_template.replace("{prompt}", text)

    def token_ids(self, prompts: Sequence[Any], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
        """Tokenize formatted prompts as the trainer does."""
        if isinstance(prompts[0], str):
            return tokenizer(list(prompts))["input_ids"]
        options = {"tokenize": True, "tools": list(self.tools) or None, **_SET_BY_TRAINER}
        return tokenizer.apply_chat_template(list(prompts), **options, **self.chat_template_kwargs)["input_ids"]

    def text(self, prompt: Any, tokenizer: "PreTrainedTokenizerBase") -> str:
        """The text of a formatted prompt, which `token_ids` tokenizes."""
        if isinstance(prompt, str):
            return prompt
        options = {"tokenize": False, "tools": list(self.tools) or None, **_SET_BY_TRAINER}
        return tokenizer.apply_chat_template(prompt, **options, **self.chat_template_kwargs)

    def longest(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> int:
        """Number of tokens of the longest prompt. Only the 64 prompts with the most characters are tokenized."""
        lengths = [len(str(prompt)) for prompt in dataset["prompt"]]
        longest = sorted(range(len(lengths)), key=lengths.__getitem__)[-64:]
        prompts = self.format(dataset.select(longest), tokenizer)["prompt"]
        return max(len(ids) for ids in self.token_ids(prompts, tokenizer))
