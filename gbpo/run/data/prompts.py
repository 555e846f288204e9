"""How a prompt of the data set becomes the tokens that the model reads, in training and in every evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..rewards_package import rewards_module
from ..tools.named_tools import schemas
from . import images

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..recipe.parsing import Recipe  # which loads TRL

# TRL passes these to `apply_chat_template`, so `chat_template_kwargs` cannot contain them
_SET_BY_TRAINER = {"chat_template": None, "add_generation_prompt": True, "return_dict": True}
_NOT_FOR_RECIPES = {*_SET_BY_TRAINER, "tools", "tokenize", "messages", "conversation", "continue_final_message"}
_AT_ONCE = 64  # rows whose images are in memory at the same time


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
        content = self.system_prompt if isinstance(last["content"], str) else [_text(self.system_prompt)]
        system = [{"role": "system", "content": content}] if self.system_prompt else []
        return [*system, *earlier, {**last, "content": self._in_template(last["content"])}]

    def _in_template(self, content: Any) -> Any:
        if self.prompt_template is None:
            return content
        if isinstance(content, str):
            return self.prompt_template.replace("{prompt}", content)
        before, _, after = self.prompt_template.partition("{prompt}")  # images have one place each
        return [*([_text(before)] if before else []), *content, *([_text(after)] if after else [])]

    def token_ids(self, prompts: Sequence[Any], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
        """Tokenize formatted prompts as the trainer does."""
        if isinstance(prompts[0], str):
            return tokenizer(list(prompts))["input_ids"]
        options = {"tokenize": True, "tools": list(self.tools) or None, **_SET_BY_TRAINER}
        return tokenizer.apply_chat_template(list(prompts), **options, **self.chat_template_kwargs)["input_ids"]

    def inputs(self, prompts: Sequence[Any], processor: Any) -> dict[str, Any]:
        """What a vision-language model reads for formatted prompts that contain their images, as padded tensors."""
        options = {"tokenize": True, "padding": True, "return_tensors": "pt", **_SET_BY_TRAINER}
        return dict(processor.apply_chat_template(list(prompts), **options, **self.chat_template_kwargs))

    def lengths(self, dataset: Dataset, processing: Any) -> list[int]:
        """Number of tokens of each prompt of a data set, with the tokens of its images.

        Args:
            dataset: A data set as `load` returns it.
            processing: The tokenizer of the model or, for images, its processor.
        """
        if images.column_of(dataset) is None:
            prompts = self.format(dataset, processing)["prompt"]
            return [len(ids) for ids in self.token_ids(prompts, processing)]
        found = []
        for first in range(0, len(dataset), _AT_ONCE):
            some = dataset.select(range(first, min(first + _AT_ONCE, len(dataset))))
            prompts = [
                images.filled(self.formatted(prompt, processing), pictures)
                for prompt, pictures in zip(some["prompt"], images.decoded(some), strict=True)
            ]
            found += [len(ids) for ids in self.token_ids(prompts, processing)]
        return found

    def text(self, prompt: Any, tokenizer: "PreTrainedTokenizerBase") -> str:
        """The text of a formatted prompt, which `token_ids` tokenizes."""
        if isinstance(prompt, str):
            return prompt
        options = {"tokenize": False, "tools": list(self.tools) or None, **_SET_BY_TRAINER}
        return tokenizer.apply_chat_template(prompt, **options, **self.chat_template_kwargs)

    def longest(self, dataset: Dataset, processing: Any) -> int:
        """Number of tokens of the longest prompt, as `lengths`.

        Only the 64 prompts with the most characters are tokenized, and the 64 with the most pixels.
        """
        sizes = [[len(str(prompt)) for prompt in dataset["prompt"]]]
        if images.column_of(dataset) is not None:
            sizes.append(images.pixels(dataset))
        largest = {row for size in sizes for row in sorted(range(len(size)), key=size.__getitem__)[-64:]}
        return max(self.lengths(dataset.select(sorted(largest)), processing))

    def image_inputs(self, dataset: Dataset, processing: Any) -> Mapping[str, Any] | None:
        """What the processor makes of the row with the most pixels, as tensors. None for a data set without images."""
        if images.column_of(dataset) is None:
            return None
        sizes = images.pixels(dataset)
        row = dataset.select([sizes.index(max(sizes))])
        (pictures,) = images.decoded(row)
        prompt = images.filled(self.formatted(row[0]["prompt"], processing), pictures)
        options = {"tokenize": True, "return_tensors": "pt", "tools": list(self.tools) or None, **_SET_BY_TRAINER}
        return processing.apply_chat_template([prompt], **options, **self.chat_template_kwargs)


def _text(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": text}
