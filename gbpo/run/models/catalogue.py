"""Models that a recipe can name: builtin ones, which this project builds and caches, local folders and Hub ids."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from inspect import getsource
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from ...shared.packages import check_installed

PREFIX = "builtin:"

# name → function that takes the folder to write to, its module in this package, and the modules that it trains with
_BUILDERS = {
    "tiny_math": ("build_math", "tiny"),
    "tiny_code": ("build_code", "tiny"),
    "tiny_words": ("build_words", "tiny"),
    "tiny_chain": ("build", "tiny_chain", "tiny"),
    "tiny_vision": ("build", "tiny_vision", "tiny"),
    "tiny_agent": ("build", "agent", "tool_chat", "tiny"),
    "tiny_tools": ("build", "tiny_tools", "tool_chat", "tiny"),
    "gemma3_270m": ("build", "gemma"),
}
# name → package that builds it, beside those that gbpo installs; the extra `gemma` has all of them
_PACKAGES = {"tiny_words": "reasoning_gym", "gemma3_270m": "gguf"}


def check_model_name(name: str | None) -> None:
    """Check that a name can be a model, without loading anything.

    Raises:
        ValueError: The name is neither a builtin model, nor a folder with a config.json, nor a possible Hub id.
        ImportError: The package that builds a builtin model is missing, and the model is not built yet.
    """
    if not name:
        raise ValueError("model_name_or_path is missing: write a Hub id, a local folder or builtin:tiny_math.")
    if name.startswith(PREFIX):
        if name.removeprefix(PREFIX) not in _BUILDERS:
            known = ", ".join(PREFIX + builder for builder in _BUILDERS)
            raise ValueError(f"model_name_or_path={name!r} is not a builtin model. Write one of {known}.")
        package = _PACKAGES.get(name.removeprefix(PREFIX))
        if package and not is_built(name):
            check_installed(package, "gemma", f"Building model_name_or_path={name!r} once")
    elif is_folder(name) and not (Path(name).expanduser() / "config.json").is_file():
        raise ValueError(f"model_name_or_path={name!r} is not a folder with a config.json. Check the path.")


def is_folder(name: str) -> bool:
    """Whether a name means a local folder, existing or not. A Hub id contains at most one slash."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()


def local_model(name: str) -> str:
    """Return a path or Hub id that transformers can load. Builtin models are built and cached at the first call.

    Several processes may call this at the same time: one builds, the others wait.

    Args:
        name: The `model_name_or_path` of a recipe, for example `"builtin:tiny_math"`.

    Returns:
        The cached folder of a builtin model. Other names are returned with `~` expanded.

    Raises:
        ValueError: There is no builtin model of this name.
    """
    if not name.startswith(PREFIX):
        return str(Path(name).expanduser()) if name.startswith("~") else name
    check_model_name(name)
    name = name.removeprefix(PREFIX)
    function, *_ = _BUILDERS[name]
    folder = _builtin_folder(name)
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{folder.name}.lock"):
        if not folder.is_dir():
            print(f"gbpo: building {PREFIX}{name} once, into {folder}", flush=True)
            unfinished = cache / f"{folder.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with _one_thread():
                getattr(_modules(name)[0], function)(unfinished)
            unfinished.rename(folder)
    return str(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch use one thread. More threads make the training of a tiny model slower, and may change its weights."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_built(name: str) -> bool:
    """Whether a model needs no building. False for a builtin model before its first run."""
    return not name.startswith(PREFIX) or _builtin_folder(name.removeprefix(PREFIX)).is_dir()


def _builtin_folder(name: str) -> Path:
    """One folder per version of the code that builds the model."""
    code = "".join(map(getsource, _modules(name)))
    return cache_folder() / f"{name}-{sha256(code.encode()).hexdigest()[:10]}"


def _modules(name: str) -> list[ModuleType]:
    return [import_module(f".{module}", __package__) for module in _BUILDERS[name][1:]]


def cache_folder() -> Path:
    """Folder for files that can be rebuilt: `$XDG_CACHE_HOME/gbpo`, by default `~/.cache/gbpo`."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gbpo"
