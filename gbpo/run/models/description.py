"""The configuration, tokenizer and processor of a model, read and checked before its weights are loaded."""

from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub.constants import HF_HUB_OFFLINE
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ...shared.nearest import nearest
from .processors import load_processor

if TYPE_CHECKING:
    from ..recipe.parsing import Recipe  # which loads TRL: `read` is used without it

_DTYPES = ("auto", "bfloat16", "float16", "float32")

# options that `from_pretrained` accepts in its **kwargs
LOADING_OPTIONS = {
    "allow_all_kernels",
    "attn_implementation",
    "device_map",
    "dtype",
    "experts_implementation",
    "gguf_file",
    "key_mapping",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "quantization_config",
    "subfolder",
    "tp_plan",
    "trust_remote_code",
    "use_kernels",
    "variant",
}
# parameters of `from_pretrained` that a recipe cannot set
_NOT_FOR_RECIPES = {"pretrained_model_name_or_path", "model_args", "config", "kwargs"}


@dataclass(frozen=True)
class Description:
    """The configuration, class and tokenizer of a model.

    Args:
        config: The transformers configuration of the model.
        architecture: The class that loads the model.
        tokenizer: The tokenizer of the model, which pads on the left.
        processor: The processor of a vision-language model, if the recipe has images. It holds the same tokenizer.
    """

    config: Any
    architecture: Any
    tokenizer: Any
    processor: Any = None

    @property
    def processing_class(self) -> Any:
        """What makes the inputs of the model: its processor if there are images, otherwise its tokenizer."""
        return self.processor or self.tokenizer


def describe(model: str, recipe: "Recipe") -> Description:
    """Read the configuration and the tokenizer of a recipe's model, and its processor if the recipe has images.

    Args:
        model: Folder or Hub id, as `local_model` returns it.
        recipe: The recipe, for the revision, the chat template and `model_init_kwargs`.

    Raises:
        ValueError: As for `read`, the model does not accept the `model_init_kwargs`, or it reads text only although the
            recipe has images.
    """
    options = {
        "revision": recipe.model.model_revision,
        "trust_remote_code": recipe.training.trust_remote_code,
    }
    description = read(model, model, recipe.run.chat_template_path, **options)
    _check_init_kwargs(recipe.training.model_init_kwargs or {}, description.config)
    run = recipe.run
    return with_images(description, model, run.image_column, run.chat_template_path, **options)


def with_images(
    description: Description, model: str, image_column: str | None, chat_template_path: str | None, **options: Any
) -> Description:
    """Add the processor to a description, if there are images.

    Args:
        description: What `read` returned.
        model: Folder or Hub id of the processor.
        image_column: The column with the images, or None.
        chat_template_path: As for `read`.
        options: Passed to `from_pretrained` of the processor.

    Raises:
        ValueError: The model reads text only, or its processor cannot be read.
    """
    if image_column is None:
        return description
    try:
        processor = load_processor(model, description.config, **options)
    except Exception as error:  # processors raise many types of errors
        fix = "Save the processor beside the model: processor.save_pretrained(folder)."
        raise _not_loaded(model, "processor", error, fix) from None
    if processor is None:
        raise ValueError(
            f"image_column={image_column!r} needs a model that sees images, but {model!r} is a "
            f"{description.architecture.__name__}, which reads text only. Give a vision-language model, such as "
            "Qwen/Qwen2.5-VL-3B-Instruct, or remove image_column."
        )
    if chat_template_path is not None:
        processor.chat_template = description.tokenizer.chat_template
    processor.tokenizer.chat_template = processor.chat_template
    return replace(description, tokenizer=processor.tokenizer, processor=processor)


def _check_init_kwargs(options: dict[str, Any], config: Any) -> None:
    """Raise `ValueError` if an option is unknown to both `from_pretrained` and the model's configuration."""
    named = set(signature(transformers.PreTrainedModel.from_pretrained).parameters) - _NOT_FOR_RECIPES
    known = named | LOADING_OPTIONS | config.to_dict().keys()
    for name in options:
        if name not in known:
            raise ValueError(
                f"model_init_kwargs names {name!r}, which {type(config).__name__} does not accept: the model could not "
                f"be loaded. Did you mean {nearest(name, known)!r}?"
            )
    dtype = options.get("dtype")
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(
            f"model_init_kwargs: dtype={dtype!r} is not a weight type that TRL loads. Write one of "
            f"{', '.join(_DTYPES)}."
        )


def read(model: str, tokenizer_folder: str, chat_template_path: str | None, **options: Any) -> Description:
    """Read a model's configuration and tokenizer, and a chat template.

    Args:
        model: Folder or Hub id of the model.
        tokenizer_folder: Folder or Hub id of the tokenizer.
        chat_template_path: File whose Jinja template replaces the tokenizer's own, if given.
        options: Passed to `from_pretrained` of the configuration and of the tokenizer.

    Raises:
        ValueError: A file cannot be read, or the model is not a decoder.
    """
    try:
        config = AutoConfig.from_pretrained(model, **options)
    except (OSError, ValueError) as error:
        cause = "HF_HUB_OFFLINE is set: remove it" if HF_HUB_OFFLINE else "Check the name and the connection"
        raise _not_loaded(model, "config", error, f"{cause}, or give a local folder.") from None
    names = config.architectures or ["none"]
    architecture = getattr(transformers, names[0], AutoModelForCausalLM)
    generates = architecture is AutoModelForCausalLM or architecture.can_generate()
    if config.is_encoder_decoder or not generates:
        raise ValueError(
            f"model_name_or_path={model!r} is a {names[0]}, which does not continue a prompt token by token. Give a "
            "decoder, such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    fix = "Save the tokenizer beside the model: tokenizer.save_pretrained(folder)."
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, **options, padding_side="left")
    except Exception as error:  # tokenizers raise many types of errors
        raise _not_loaded(tokenizer_folder, "tokenizer", error, fix) from None
    # without any tokenizer file, transformers builds a tokenizer with an empty vocabulary
    if not set(tokenizer("2+3=")["input_ids"]) - {tokenizer.unk_token_id}:
        raise _not_loaded(tokenizer_folder, "tokenizer", ValueError("its vocabulary is empty."), fix)
    if chat_template_path is not None:
        tokenizer.chat_template = Path(chat_template_path).expanduser().read_text()
    return Description(config, architecture, tokenizer)


def _not_loaded(model: str, part: str, error: Exception, fix: str) -> ValueError:
    reason = " ".join(str(error).split())
    reason = reason if len(reason) <= 200 else f"{reason[:200].rpartition(' ')[0]} …"
    return ValueError(f"model_name_or_path={model!r}: its {part} cannot be loaded: {reason} {fix}")
