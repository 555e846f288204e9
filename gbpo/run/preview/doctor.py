"""Say what this machine can run, and what a recipe lacks.

The command prints the package versions, devices, engines and sandbox layers of
this machine. With a recipe, it also checks what the recipe needs. Without a
recipe it checks what every run needs. Exit status: 0 if all of this is there, 1
if something is missing, 2 for bad input.
"""

import importlib
import multiprocessing
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from ...shared.provenance import installed_version

SECONDS = 120.0  # time limit of a probe that runs in its own process
_HUB_SECONDS = 3.0
_ENGINES = ("vllm", "deepspeed", "bitsandbytes", "flash_attn", "kernels")

# (mark, name, finding); the mark "MISSING" makes the exit status 1
Row = tuple[str, str, str]
OK, OPTIONAL, MISSING = "ok", "-", "MISSING"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the findings and exit with status 0, 1 or 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: gbpo doctor [RECIPE [--field value …]]\n\n{(__doc__ or '').rstrip()}")
        return
    missing = False
    reach = _guarded(hub)
    if reach[0][0] != OK:  # must be set before the Hub client is imported, or the probes wait for its timeouts
        os.environ["HF_HUB_OFFLINE"] = "1"
    probes: list[tuple[str, Callable[[], list[Row]]]] = [
        ("packages", packages),
        ("devices", devices),
        ("engines", engines),
        ("sandbox of the code reward", sandbox),
        ("Hugging Face Hub", lambda: reach),
    ]
    if argv:
        try:
            recipe = _parse(argv)
        except (ValueError, ImportError) as error:
            print(f"gbpo doctor: error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        probes.append((f"recipe {recipe.path}", lambda: needs(recipe)))
    for title, probe in probes:
        rows = _guarded(probe)
        missing |= any(mark == MISSING for mark, _, _ in rows)
        width = max(len(name) for _, name, _ in rows)
        print(f"\n{title}")
        for mark, name, found in rows:
            print(f"  {mark:<7} {name:<{width}}  {found}", flush=True)
    print("\nSomething is missing: see above." if missing else "\nNothing is missing.")
    raise SystemExit(1 if missing else 0)


def packages() -> list[Row]:
    """The packages that gbpo requires: whether each is installed, and whether its version is in the required range."""
    rows, tested = [], _tested()
    for text in requires("gbpo") or []:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if requirement.name == "gbpo" or (extra in ("dev", "control", "evals")):
            continue
        wanted = str(requirement.specifier) or "any"
        purpose = f"needs {wanted}" + (f", for gbpo[{extra}]" if extra else "")
        if requirement.name.lower() in tested:
            purpose += f", tested with {tested[requirement.name.lower()]}"
        found = installed_version(requirement.name)
        if found is None:
            rows.append((OPTIONAL if extra else MISSING, requirement.name, f"not installed; {purpose}"))
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        mark = OK if fits else OPTIONAL if extra else MISSING
        rows.append((mark, requirement.name, f"{found}; {'' if fits else 'OUT OF RANGE, '}{purpose}"))
    return sorted(rows, key=lambda row: row[0] == OPTIONAL)


def _tested() -> dict[str, str]:
    """The versions that the test suite runs with. Empty unless gbpo runs from a checkout."""
    path = Path(__file__).parents[3] / "constraints.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name.lower(): found for name, _, found in (line.partition("==") for line in lines if "==" in line)}


def _extra(requirement: Requirement) -> str | None:
    """The extra that a requirement belongs to, or None."""
    if requirement.marker is None:
        return None
    names = [part.split('"')[1] for part in str(requirement.marker).split("extra == ")[1:]]
    return names[0] if names else None


def devices() -> list[Row]:
    """GPUs, cores, memory and disk."""
    import torch

    rows: list[Row] = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        rows.append((OK, f"GPU {i}", f"{properties.name}, {_gigabytes(properties.total_memory)}"))
    if rows:
        rows.append((OK, "bf16", "yes" if torch.cuda.is_bf16_supported() else "no: write fp16: true, bf16: false"))
    else:
        rows.append((OPTIONAL, "GPU", "none: runs use the CPU"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = shutil.disk_usage(os.getcwd()).free
    rows += [
        (OK, "CPU", f"{cores} cores, {_gigabytes(memory)} of memory"),
        (OK, "disk", f"{_gigabytes(free)} free in {os.getcwd()}"),
    ]
    return rows


def engines() -> list[Row]:
    """The optional engines: whether each can be imported, or the error."""
    rows = []
    for name in _ENGINES:
        if importlib.util.find_spec(name) is None:
            rows.append((OPTIONAL, name, "not installed"))
            continue
        error = _in_process(_import, name)
        rows.append((OK if error is None else OPTIONAL, name, error or "imports"))
    return rows


def sandbox() -> list[Row]:
    """The layers of the sandbox for the code reward. Small programs that try to break out test each layer."""
    found = _in_process(_sandbox)
    return found if isinstance(found, list) else [(OPTIONAL, "box", str(found))]


def hub() -> list[Row]:
    """Whether the Hub can be reached."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return [(OPTIONAL, "offline", "HF_HUB_OFFLINE is set: only local files and the cache are read")]
    reason = _in_process(_connect, seconds=2 * _HUB_SECONDS)
    return [(OK if reason is None else OPTIONAL, "reachable" if reason is None else "unreachable", reason or "yes")]


def needs(recipe: Any) -> list[Row]:
    """Check the data, rewards, model and memory that a recipe needs. Each check runs even if another one fails."""
    from ..data.loading import load
    from ..data.long_prompts import drop_long_prompts
    from ..data.prompts import PromptFormat
    from ..models import attention, catalogue
    from ..models.chat_templates import check_recipe_prompts
    from ..models.description import describe
    from ..rewards import load_rewards
    from . import memory
    from .device import device_here

    rows: list[Row] = []

    def look(name: str, find: Callable[[], str]) -> None:
        try:
            rows.append((OK, name, find()))
        except (ValueError, ImportError) as error:
            rows.append((MISSING, name, " ".join(str(error).split())))

    loaded: dict[str, Any] = {}

    def data_set() -> str:
        evaluation = recipe.training.eval_strategy != "no"
        loaded["train"], loaded["eval"] = load(recipe.run, evaluation=evaluation)
        return f"{recipe.run.dataset_name}, {len(loaded['train']):,} prompts"

    def rewards() -> str:
        made = load_rewards(recipe.run, loaded["train"], recipe.training.max_completion_length)
        return ", ".join(type(reward).__name__ for reward in made)

    def model() -> str:
        name = recipe.model.model_name_or_path
        catalogue.check_model_name(name)
        if not catalogue.is_built(name):
            return f"{name}, which the first run builds"
        loaded["model"] = describe(catalogue.local_model(name), recipe)
        chosen = attention.choose(recipe, loaded["model"])
        recipe.model.attn_implementation = chosen.name
        return f"{name}, {loaded['model'].architecture.__name__}, attention {chosen}; its weights are not checked"

    def prompts() -> str:
        processing, form = loaded["model"].processing_class, PromptFormat.of(recipe)
        check_recipe_prompts(recipe, loaded["train"], loaded["eval"], loaded["model"].tokenizer)
        kept = drop_long_prompts(loaded["train"], recipe.run.max_prompt_tokens, form, processing, "training set")
        loaded["tokens"], loaded["images"] = form.longest(kept, processing), form.image_inputs(kept, processing)
        return f"the longest has {loaded['tokens']:,} tokens"

    def enough_memory() -> str:
        tokens = loaded["tokens"]
        skeleton = memory.skeleton(recipe, loaded["model"])
        estimate = memory.estimate(recipe, skeleton, tokens, loaded["images"])
        here = device_here(recipe)
        text = f"estimated peak {estimate.verdict(here)}"
        if not estimate.fits(estimate.device(here).memory):
            raise ValueError(
                f"{text}. Write a smaller per_device_train_batch_size or max_completion_length, or use_peft."
            )
        return text

    look("data set", data_set)
    if "train" in loaded:
        look("rewards", rewards)
    look("model", model)
    look("engine", lambda: "vLLM" if recipe.training.use_vllm else "transformers")
    if {"train", "model"} <= loaded.keys():
        look("prompts", prompts)
    if "tokens" in loaded:
        look("memory", enough_memory)
    return rows


def _parse(argv: Sequence[str]) -> Any:
    from ..data.loading import quiet
    from ..recipe.parsing import parse

    quiet()
    return parse(argv)


def _guarded(probe: Callable[[], list[Row]]) -> list[Row]:
    try:
        return probe()
    except Exception as error:  # the other probes still run
        return [(MISSING, "probe", f"failed with {type(error).__name__}: {' '.join(str(error).split())[:200]}")]


def _in_process(work: Callable[..., Any], *args: Any, seconds: float = SECONDS) -> Any:
    """Run `work` in its own process, because importing an engine can hang or abort.

    Returns:
        The result of `work`, or a text that says why there is none.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, work, *args), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return f"no answer within {seconds:.0f} s"
        return receiver.recv()
    except EOFError:
        process.join(5)
        return f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join(5)


def _report(sender: Any, work: Callable[..., Any], *args: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hide the messages of engines that are being imported
    try:
        answer = work(*args)
    except Exception as error:
        answer = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    sender.send(answer)


def _import(name: str) -> None:
    importlib.import_module(name)


def _connect() -> None:
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").split("://")[-1].split("/")[0]
    name, _, port = host.partition(":")
    socket.create_connection((name, int(port or 443)), timeout=_HUB_SECONDS).close()


def _sandbox() -> list[Row]:
    from ..rewards_package import rewards_module

    box = rewards_module("programs.sandbox.box")
    canaries = rewards_module("programs.sandbox.canaries")
    try:
        ready = box.Box(allow_missing=tuple(canaries.LAYERS)).ready()
    except box.BoxError as error:
        return [(OPTIONAL, "box", str(error))]
    rows: list[Row] = [(OK, "backend", ready.backend)]
    for layer in canaries.LAYERS:
        tried = ", ".join(s.tried for s in ready.canary_results if s.layer == layer)
        held = layer not in ready.missing
        rows.append((OK if held else OPTIONAL, layer, f"{'stopped' if held else 'NOT stopped'}: {tried}"))
    return rows


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
