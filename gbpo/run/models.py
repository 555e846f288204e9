"""Models that a recipe can name without the Hub: tiny decoders and Gemma 3 270M, each built by this project."""

import os
import shutil
from hashlib import sha256
from importlib import import_module
from inspect import getsource
from pathlib import Path

from filelock import FileLock

PREFIX = "builtin:"

# name → module and its function of a directory
_BUILDERS = {
    "tiny_math": ("tiny", "build_math"),
    "tiny_code": ("tiny", "build_code"),
    "gemma3_270m": ("gemma", "build"),
}


def check_model_name(name: str | None) -> None:
    """Raise `ValueError` unless `name` can be a model: a builtin one, an existing folder, or a Hub id."""
    if not name:
        raise ValueError("model_name_or_path is missing: write a Hub id, a local folder or builtin:tiny_math.")
    if name.startswith(PREFIX):
        if name.removeprefix(PREFIX) not in _BUILDERS:
            known = ", ".join(PREFIX + builder for builder in _BUILDERS)
            raise ValueError(f"model_name_or_path={name!r} is not a builtin model. Write one of {known}.")
    elif name.startswith((".", "/", "~")) and not (Path(name).expanduser() / "config.json").is_file():
        raise ValueError(f"model_name_or_path={name!r} is no folder with a config.json. Check the path.")


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
    version = sha256(getsource(module).encode()).hexdigest()[:10]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gbpo"
    folder = cache / f"{name}-{version}"
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
