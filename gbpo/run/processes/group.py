"""What the processes of one run do together, and whether they are what the launcher was asked for."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
from accelerate import PartialState
from accelerate.commands.config import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, broadcast_object_list, str_to_bool
from filelock import FileLock, Timeout
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback

T = TypeVar("T")

_held: list[FileLock] = []

_FALLBACKS = {DistributedType.NO: "a single process", DistributedType.MULTI_CPU: "DDP"}


class LaunchError(ValueError):
    """The processes are not what the launcher was asked for."""


def agreed(choose: Callable[[], T]) -> T:
    """What the main process chooses, on every process; its error likewise."""
    state = PartialState()
    answer: list[Any] = [None]
    if state.is_main_process:
        try:
            answer = [choose()]
        except ValueError as error:
            answer = [error]
    if state.num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], ValueError):
        raise answer[0]
    return answer[0]


def refuse(error: Exception) -> NoReturn:
    """Print the error in one line, once for all processes, and exit with status 2."""
    if os.environ.get("RANK", "0") == "0":
        print(f"gbpo: error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def check_launcher() -> None:
    """Check that `accelerate launch` started as many processes as it was asked for; call it before anything else.

    Where it finds no accelerators for them, accelerate starts a single process, whatever the number, and tells it
    nothing of the others: what was asked for stands on the command line of the parent alone.

    Raises:
        LaunchError: When several were asked for and this one is alone.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    asked = _processes_asked_of_accelerate()
    if asked > 1:
        raise LaunchError(
            f"accelerate was asked for {asked} processes and started one: it starts several on accelerators alone, and "
            "never with --cpu, use_cpu or MULTI_CPU. Write torchrun --nproc-per-node "
            f"{asked}, or accelerate launch --config_file launch/accelerate/ddp.yaml --num_processes {asked}, which "
            "both work on a CPU too."
        )


def _processes_asked_of_accelerate() -> int:
    """The number on the command line of the parent process or in its config file; 1 where neither can be read."""
    command = parent_command()
    starts = [i for i, word in enumerate(command) if word.endswith("launch")]  # or accelerate-launch
    if not starts:
        return 1
    args = launch_command_parser().parse_args(command[starts[0] + 1 :])
    if args.num_processes is not None:
        return args.num_processes
    if args.config_file is not None or (Path(default_config_file).is_file() and not args.cpu):
        return load_config_from_file(args.config_file).num_processes
    return 1


def parent_command() -> list[str]:
    """The command line of the process that started this one: a launcher or a shell; empty where it cannot be read."""
    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent is not None else []
    except psutil.Error:
        return []


def check_group() -> None:
    """Check that the processes of the launcher are one group; call it once the recipe is parsed.

    Raises:
        LaunchError: When each of them would be a run of its own.
    """
    started, together = int(os.environ.get("WORLD_SIZE", "1")), PartialState().num_processes
    if started != together:
        raise LaunchError(
            f"The launcher started {started} processes, but this one is in a group of {together}: each would train "
            "alone and overwrite what the others write. Without an accelerator write use_cpu: true; else launch with "
            "torchrun or accelerate launch, which set RANK, LOCAL_RANK and WORLD_SIZE."
        )


def check_strategy(trainer: Trainer) -> None:
    """Check that the trainer has the strategy that the launcher or the recipe names.

    Raises:
        LaunchError: When accelerate fell back to another one, as it does with FSDP on a CPU.
    """
    asked = {
        DistributedType.FSDP: is_set("ACCELERATE_USE_FSDP") or trainer.args.fsdp,
        DistributedType.DEEPSPEED: is_set("ACCELERATE_USE_DEEPSPEED") or trainer.args.deepspeed,
    }
    got = trainer.accelerator.distributed_type
    for strategy, wanted in asked.items():
        if wanted and got != strategy:
            raise LaunchError(
                f"{strategy.value} was asked for, but accelerate fell back to {_FALLBACKS.get(got, got.value)}: every "
                "process would hold the whole model. On a CPU take ddp.yaml, zero2.yaml or zero3.yaml."
            )


class ShardsCheck(TrainerCallback):
    """Ends the run before its first step where FSDP or ZeRO-3 left every parameter whole on every process."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        accelerator = self._trainer.accelerator
        zero = getattr(accelerator.state, "deepspeed_plugin", None)
        shards = accelerator.distributed_type == DistributedType.FSDP or (zero is not None and zero.zero_stage == 3)
        if shards and accelerator.num_processes > 1 and not any(map(is_sharded, model.parameters())):
            raise LaunchError(
                f"{accelerator.distributed_type.value} over {accelerator.num_processes} processes left every parameter "
                "whole on each, as if there were no sharding. Take the files in launch/accelerate as they are."
            )


def is_sharded(parameter: Any) -> bool:
    """Whether this process holds less than the whole of a parameter."""
    if hasattr(parameter, "ds_tensor"):  # ZeRO-3
        return parameter.ds_tensor.numel() < parameter.ds_numel
    return isinstance(parameter, DTensor) and parameter.to_local().numel() < parameter.numel()


def hold(folder: Path) -> None:
    """Make `folder` and keep it for this run until the process ends; the lock dies with the process.

    Raises:
        LaunchError: When another running process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LaunchError(
            f"Another running process writes output_dir={str(folder)!r}; both would be lost. Give another folder, or "
            "start the processes of one run with torchrun or accelerate launch."
        ) from None
    _held.append(lock)


def leave_together() -> None:
    """Let go of the process group on all processes at once; call it when nothing refers to the trainer any more.

    The trainer, in cycles of references, holds DDP's share of the group. Freed after the group is destroyed, or after
    another process has left, it can wait for ever.
    """
    gc.collect()
    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def is_set(variable: str) -> bool:
    """Whether a variable of the environment, as accelerate's launcher sets them, is true."""
    return bool(str_to_bool(os.environ.get(variable, "false")))
