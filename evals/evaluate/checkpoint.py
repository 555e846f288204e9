"""The models to evaluate: find their files and load them."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from gbpo.run.models import catalogue as models
from gbpo.run.models.description import Description, read, with_images

_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights are not loaded yet.

    Args:
        base: Folder or Hub id of the weights; for an adapter, of the weights of its base model.
        adapter: Folder of the adapter, or None.
        tokenizer_folder: Folder or Hub id of the tokenizer. An adapter's own tokenizer takes precedence.
        description: Configuration, class and tokenizer of the model.
    """

    base: str
    adapter: str | None
    tokenizer_folder: str
    description: Description

    @property
    def tokenizer(self) -> Any:
        return self.description.tokenizer

    @cached_property
    def end_tokens(self) -> list[int]:
        """Token ids that end a completion: those of the tokenizer and of the model, as in training."""
        try:
            ends = GenerationConfig.from_pretrained(self.base).eos_token_id
        except OSError:  # the model has no generation_config.json
            ends = self.description.config.get_text_config().eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in (self.tokenizer.eos_token_id, *ends) if end is not None})

    def load(self) -> Any:
        """Load the model in the dtype of its saved weights, onto the accelerator if there is one."""
        model = self._load_base() if self.adapter is None else self._load_adapter()
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        return model.to(device).eval()

    @contextmanager
    def merged(self) -> Iterator[str]:
        """Folder or Hub id of the model with its adapter merged. The folder is temporary."""
        if self.adapter is None:
            yield self.base
            return
        with tempfile.TemporaryDirectory() as folder:
            self._load_adapter().merge_and_unload().save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            yield folder

    def _load_base(self) -> Any:
        return self.description.architecture.from_pretrained(self.base, dtype="auto")

    def _load_adapter(self) -> Any:
        from peft import AutoPeftModelForCausalLM, PeftModel

        if self.description.processor is not None:  # peft loads only text models by itself
            return PeftModel.from_pretrained(self._load_base(), self.adapter)
        return AutoPeftModelForCausalLM.from_pretrained(self.adapter, dtype="auto")


def find_checkpoint(name: str, chat_template_path: str | None = None, image_column: str | None = None) -> Checkpoint:
    """Read the configuration and the tokenizer of a model, and for images its processor, without its weights.

    Args:
        name: Folder of a model or of an adapter, Hub id, or name of a builtin model.
        chat_template_path: File with a chat template that replaces the tokenizer's.
        image_column: Column with the images that the model reads, if there are images.

    Raises:
        ValueError: The model does not exist, does not generate text, or sees no images although there are some.
    """
    folder = Path(name).expanduser()
    adapter = folder if (folder / _ADAPTER_CONFIG).is_file() else None
    if adapter is None:
        models.check_model_name(name)
        base = models.local_model(name)
    else:
        base = json.loads((adapter / _ADAPTER_CONFIG).read_text())["base_model_name_or_path"]
    has_tokenizer = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    tokenizer_folder = str(adapter) if has_tokenizer else base
    description = read(base, tokenizer_folder, chat_template_path)
    description = with_images(description, tokenizer_folder, image_column, chat_template_path)
    return Checkpoint(base, None if adapter is None else str(adapter), tokenizer_folder, description)


@contextmanager
def memory_released() -> Iterator[None]:
    """Free the memory of models that are no longer referenced when the block ends."""
    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
