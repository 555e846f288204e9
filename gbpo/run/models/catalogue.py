"""Models that a recipe can name without the Hub: tiny decoders and Gemma 3 270M, each built by this project."""

import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from inspect import getsource, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import transformers
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ...shared.recipe_yaml import nearest

if TYPE_CHECKING:
    from ..recipe.parsing import Recipe

PREFIX = "builtin:"

# name → module and its function of a directory
_BUILDERS = {
    "tiny_math": ("tiny", "build_math"),
    "tiny_code": ("tiny", "build_code"),
    "tiny_words": ("tiny", "build_words"),
    "gemma3_270m": ("gemma", "build"),
}

_DTYPES = ("auto", "bfloat16", "float16", "float32")

# What `from_pretrained` takes beyond its signature, and what of its signature is no value of a recipe
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
_NOT_FOR_RECIPES = {"pretrained_model_name_or_path", "model_args", "config", "kwargs"}


def check_model_name(name: str | None) -> None:
    """Raise `ValueError` unless `name` can be a model: a builtin one, an existing folder, or a Hub id."""
    if not name:
        raise ValueError("model_name_or_path is missing: write a Hub id, a local folder or builtin:tiny_math.")
    if name.startswith(PREFIX):
        if name.removeprefix(PREFIX) not in _BUILDERS:
            known = ", ".join(PREFIX + builder for builder in _BUILDERS)
            raise ValueError(f"model_name_or_path={name!r} is not a builtin model. Write one of {known}.")
    elif _is_folder(name) and not (Path(name).expanduser() / "config.json").is_file():
        raise ValueError(f"model_name_or_path={name!r} is no folder with a config.json. Check the path.")


def _is_folder(name: str) -> bool:
    """Whether a name means a folder, there or not; a Hub id has one slash at most."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def local_model(name: str) -> str:
    """The folder of a builtin model, built and cached at the first call; any other name as it is.

    The cache lies under `$XDG_CACHE_HOME/gbpo` (by default `~/.cache/gbpo`), one folder per version of the code that
    builds it. Several processes may call this at once: one builds, the others wait.
    """
    if not name.startswith(PREFIX):
        return str(Path(name).expanduser()) if name.startswith("~") else name
    name = name.removeprefix(PREFIX)
    module_name, function = _BUILDERS[name]
    module = import_module(f".{module_name}", __package__)
    folder = _builtin_folder(name)
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{folder.name}.lock"):
        if not folder.is_dir():
            print(f"gbpo: preparing {PREFIX}{name} once, into {folder}", flush=True)
            unfinished = cache / f"{folder.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            getattr(module, function)(unfinished)
            unfinished.rename(folder)
    return str(folder)


def is_here(name: str) -> bool:
    """Whether a model needs no building: false for a builtin one before its first run."""
    return not name.startswith(PREFIX) or _builtin_folder(name.removeprefix(PREFIX)).is_dir()


def _builtin_folder(name: str) -> Path:
    module = import_module(f".{_BUILDERS[name][0]}", __package__)
    version = sha256(getsource(module).encode()).hexdigest()[:10]
    return cache_folder() / f"{name}-{version}"


def cache_folder() -> Path:
    """Where this project keeps what it can make again: `$XDG_CACHE_HOME/gbpo`, by default `~/.cache/gbpo`."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gbpo"


@dataclass(frozen=True)
class Description:
    """A model before its weights: its configuration, the class that holds it, and its tokenizer."""

    config: Any
    architecture: Any
    tokenizer: Any


def describe(model: str, recipe: "Recipe") -> Description:
    """Read the configuration and the tokenizer of a recipe's model.

    Raises:
        ValueError: As `read`, or `model_init_kwargs` that the model does not take.
    """
    options = {
        "revision": recipe.model.model_revision,
        "trust_remote_code": recipe.training.trust_remote_code,
    }
    description = read(model, model, recipe.run.chat_template_path, **options)
    _check_init_kwargs(recipe.training.model_init_kwargs or {}, description.config)
    return description


def _check_init_kwargs(options: dict[str, Any], config: Any) -> None:
    """Raise `ValueError` for what neither `from_pretrained` nor the configuration of the model knows."""
    named = set(signature(transformers.PreTrainedModel.from_pretrained).parameters) - _NOT_FOR_RECIPES
    known = named | LOADING_OPTIONS | config.to_dict().keys()
    for name in options:
        if name not in known:
            raise ValueError(
                f"model_init_kwargs names {name!r}, which a {type(config).__name__} does not take: the model could not "
                f"be loaded. Did you mean {nearest(name, known)!r}?"
            )
    dtype = options.get("dtype")
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(
            f"model_init_kwargs: dtype={dtype!r} is no type of weights that TRL loads. Write one of "
            f"{', '.join(_DTYPES)}."
        )


def read(model: str, tokenizer_folder: str, chat_template_path: str | None, **options: Any) -> Description:
    """Read the configuration of a model, its tokenizer, which may lie in another folder, and the chat template's file.

    Raises:
        ValueError: One of them cannot be read, the model generates no text, or the chat template does not work.
    """
    try:
        config = AutoConfig.from_pretrained(model, **options)
    except (OSError, ValueError) as error:
        raise _not_loaded(model, "", error, "Check the name and the connection, or give a local folder.") from None
    names = config.architectures or ["none"]
    architecture = getattr(transformers, names[0], AutoModelForCausalLM)
    generates = architecture is AutoModelForCausalLM or architecture.can_generate()
    if config.is_encoder_decoder or not generates:
        raise ValueError(
            f"model_name_or_path={model!r} is a {names[0]}, which does not continue a prompt token by token. Give a "
            "decoder, such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    mend = "Save the tokenizer beside the model: tokenizer.save_pretrained(folder)."
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, **options, padding_side="left")
    except Exception as error:  # the tokenizers raise many kinds
        raise _not_loaded(tokenizer_folder, "tokenizer ", error, mend) from None
    if not set(tokenizer("2+3=")["input_ids"]) - {tokenizer.unk_token_id}:  # transformers makes one out of nothing
        raise _not_loaded(tokenizer_folder, "tokenizer ", ValueError("it has no vocabulary."), mend)
    if chat_template_path is not None:
        path = Path(chat_template_path).expanduser()
        tokenizer.chat_template = path.read_text()
        _check_chat_template(tokenizer, str(path))
    return Description(config, architecture, tokenizer)


def _not_loaded(model: str, part: str, error: Exception, mend: str) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"model_name_or_path={model!r}: its {part or 'config '}cannot be loaded: {reason} {mend}")


def _check_chat_template(tokenizer: Any, path: str) -> None:
    chat = [{"role": "user", "content": "2+3"}]
    try:
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise ValueError(
            f"chat_template_path={path!r} does not work as a Jinja template: {' '.join(str(error).split())}. Mend it, "
            "or leave it out for the tokenizer's own."
        ) from None
    if "2+3" not in text:
        raise ValueError(
            f"chat_template_path={path!r} leaves the prompt out: every prompt would be {text!r}. Write "
            "{{ message['content'] }} where it goes."
        )
