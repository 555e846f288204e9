"""The memory of one forward and backward pass, and the largest pass that fits."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from ...trainer.config import GBPOConfig
from ...trainer.passes import capabilities as architecture
from ...trainer.passes.speedups import is_aligned, requested_speedups
from ..recipe.parsing import Recipe
from .device import precision, trains_on_gpu
from .fake_runs import FakeModel

# PyTorch's caching allocator reserves more than is allocated. On eight language models the unusable part was 15 % of
# the reserved memory on average, and 33 % at most (GMLake, arXiv 2401.08156).
_FRAGMENTED = 0.15


@dataclass(frozen=True)
class TrainingPass:
    """The passes of a recipe on one rank.

    Args:
        recipe: The parsed recipe.
        model: The model, with the types of weights that a pass computes with.
        prompt_tokens: Length of the longest prompt, in tokens.
    """

    recipe: Recipe
    model: FakeModel
    prompt_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of the longest possible row."""
        return self.prompt_tokens + self.recipe.training.max_completion_length

    @property
    def tokens(self) -> int:
        """Tokens of the largest pass that the recipe runs."""
        budget = self._budget
        if budget is None:
            return self.recipe.training.per_device_train_batch_size * self.longest
        return max(min(budget, self.most_tokens), self.longest)

    @property
    def most_tokens(self) -> int:
        """Tokens of the rows that may share a pass, if all are as long as possible."""
        return self.recipe.training.per_device_train_batch_size * self._window * self.longest

    @property
    def field(self) -> str:
        """The field of the recipe that limits the size of a pass."""
        return "max_tokens_per_micro_batch" if self.is_bounded else "per_device_train_batch_size"

    def as_value(self, tokens: int) -> int:
        """The value of `field` for passes of this many tokens."""
        return tokens if self.is_bounded else tokens // self.longest

    @property
    def is_bounded(self) -> bool:
        """Whether a recipe may limit the tokens of a pass. Otherwise a pass has the rows of TRL's micro-batch."""
        args, has_images = self.recipe.training, self.recipe.run.image_column is not None
        return (
            isinstance(args, GBPOConfig)
            and "arrange_rows" in requested_speedups(args.exact_speedups)
            and not has_images
        )

    @property
    def defers_reduction(self) -> bool:
        """Whether some backward passes of an optimiser step do not reduce the gradients across ranks."""
        args = self.recipe.training
        syncs_each = (args.accelerator_config.gradient_accumulation_kwargs or {}).get("sync_each_batch", False)
        several = args.gradient_accumulation_steps > 1 or ceil(self.most_tokens / self.tokens) > self._window
        return several and not syncs_each

    @property
    def _budget(self) -> int | None:
        return self.recipe.training.max_tokens_per_micro_batch if self.is_bounded else None

    @property
    def _window(self) -> int:
        """Number of micro-batches whose rows may share a pass."""
        args = self.recipe.training
        if not self.is_bounded or not is_aligned(args):
            return 1
        return min(args.steps_per_generation, args.gradient_accumulation_steps)

    def shape(self, tokens: int) -> tuple[int, int]:
        """Rows of a pass of this many tokens, and the tokens of each row."""
        rows = max(1, tokens // self.longest)
        return rows, max(self.longest, tokens // rows)

    def activations(self, tokens: int, *, checkpointing: bool, head: bool = True) -> int:
        """Peak bytes of a pass of this many tokens, with or without its LM head."""
        args, config = self.recipe.training, self.model.causal.config
        rows, width = self.shape(tokens)
        trims = "trim_padding" in requested_speedups(args.exact_speedups) and architecture.trims(self.model.causal)
        trims = trims and self.recipe.run.image_column is None
        fused = trains_on_gpu(self.recipe)
        scored = width - (self.prompt_tokens if fused else 1)  # elsewhere TRL's LM head runs on the prompts too
        return self.model.pass_bytes(
            rows,
            width,
            scored=scored if head else None,
            fused=fused,
            masked=not (trims and architecture.attends_backwards_only(config)) or _has_window_mask(config, width),
            autocast=precision(self.recipe),
            checkpointing=(args.activation_checkpointing_kwargs or {"use_reentrant": False}) if checkpointing else None,
        )

    def fragmentation(self, size: float) -> float:
        """Bytes that the allocator of a GPU reserves beside `size` bytes of tensors."""
        return _FRAGMENTED / (1 - _FRAGMENTED) * size if trains_on_gpu(self.recipe) else 0.0

    def size(self, tokens: int, *, checkpointing: bool) -> float:
        """Bytes that the allocator reserves for a pass of this many tokens."""
        size = self.activations(tokens, checkpointing=checkpointing)
        return size + self.fragmentation(size)

    def largest(self, room: float, *, checkpointing: bool) -> int:
        """Tokens of the largest pass that takes at most `room` bytes, rounded down to three digits; 0 if none does."""
        low, high = self.longest, self.most_tokens
        small, large = (self.size(tokens, checkpointing=checkpointing) for tokens in (low, high))
        if small > room:
            return 0
        while large > room:  # the size is almost linear between `low`, which fits, and `high`, which does not
            fits = min(int(low + (high - low) * (room - small) / (large - small)), high - 1)
            fits -= fits % 10 ** max(len(str(fits)) - 3, 0)
            if fits <= low:
                return low
            high, large = fits, self.size(fits, checkpointing=checkpointing)
        return high


def _has_window_mask(config: Any, width: int) -> bool:
    """Whether sdpa needs a mask, because rows of this width are longer than a window of the attention."""
    text = config.get_text_config()
    windows = "sliding_attention" in (getattr(text, "layer_types", None) or ())
    return text._attn_implementation == "sdpa" and windows and width >= text.sliding_window
