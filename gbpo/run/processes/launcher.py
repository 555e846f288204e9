"""Checks that the launcher started the number of processes and the sharding strategy that it was asked for."""

import os
from pathlib import Path
from typing import Any

import psutil
from accelerate import PartialState
from accelerate.commands.config import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, str_to_bool
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from ...trainer.config import launched_processes

_FALLBACKS = {DistributedType.NO: "a single process", DistributedType.MULTI_CPU: "DDP"}


class LaunchError(ValueError):
    """The number of processes or the sharding strategy differs from what the launcher was asked for."""


def check_launcher() -> None:
    """Check that `accelerate launch` started the number of processes it was asked for. Call it first.

    Without enough accelerators, accelerate starts one process and ignores the number that was asked for. Environment
    variables do not show this number, so it is read from the command line of the parent process.

    Raises:
        LaunchError: Several processes were asked for and one was started.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    asked = _processes_asked_of_accelerate()
    if asked > 1:
        raise LaunchError(
            f"accelerate was asked for {asked} processes and started one: accelerate starts several processes only on "
            "accelerators, and never with --cpu, use_cpu or MULTI_CPU. Use torchrun --nproc-per-node "
            f"{asked}, or accelerate launch --config_file launch/accelerate/ddp.yaml --num_processes {asked}. Both "
            "also work on a CPU."
        )


def _processes_asked_of_accelerate() -> int:
    """The number of processes on the parent's command line or in its config file; 1 if neither can be read."""
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
    """The command line of the parent process (a launcher or a shell). Empty if it cannot be read."""
    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent is not None else []
    except psutil.Error:
        return []


def check_group() -> None:
    """Check that the launched processes form one process group. Call it after the recipe is parsed.

    Raises:
        LaunchError: Each process would train alone.
    """
    started, together = launched_processes(), PartialState().num_processes
    if started != together:
        raise LaunchError(
            f"The launcher started {started} processes, but this one is in a group of {together}: each process would "
            "train alone and overwrite the files of the others. Without an accelerator write use_cpu: true. Otherwise "
            "launch with torchrun or accelerate launch, which set RANK, LOCAL_RANK and WORLD_SIZE."
        )


def check_one_gpu(args: TrainingArguments) -> None:
    """Check that a process that was started alone sees one GPU. TRL refuses several, but only with a loaded model.

    Raises:
        LaunchError: The process sees several GPUs.
    """
    if args.n_gpu > 1 and "device_map" not in (getattr(args, "model_init_kwargs", None) or {}):
        raise LaunchError(
            f"One process was started and sees {args.n_gpu} GPUs, but a process can use only one. Write --processes "
            f"{args.n_gpu} after gbpo train to use all, or CUDA_VISIBLE_DEVICES=0 before the command to use one."
        )


def check_strategy(trainer: Trainer) -> None:
    """Check that the trainer uses the strategy (FSDP or DeepSpeed) that the launcher or the recipe names.

    Raises:
        LaunchError: accelerate fell back to another strategy, as it does for FSDP on a CPU.
    """
    asked = {
        DistributedType.FSDP: _is_set("ACCELERATE_USE_FSDP") or trainer.args.fsdp,
        DistributedType.DEEPSPEED: _is_set("ACCELERATE_USE_DEEPSPEED") or trainer.args.deepspeed,
    }
    got = trainer.accelerator.distributed_type
    for strategy, wanted in asked.items():
        if wanted and got != strategy:
            raise LaunchError(
                f"{strategy.value} was asked for, but accelerate fell back to {_FALLBACKS.get(got, got.value)}: every "
                "process would hold the whole model. On a CPU use ddp.yaml, zero2.yaml or zero3.yaml."
            )


class ShardsCheck(TrainerCallback):
    """Ends the run before its first step if FSDP or ZeRO-3 did not shard any parameter."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        accelerator = self._trainer.accelerator
        zero = getattr(accelerator.state, "deepspeed_plugin", None)
        shards = accelerator.distributed_type == DistributedType.FSDP or (zero is not None and zero.zero_stage == 3)
        if shards and accelerator.num_processes > 1 and not any(map(is_sharded, model.parameters())):
            raise LaunchError(
                f"{accelerator.distributed_type.value} over {accelerator.num_processes} processes left every parameter "
                "whole on each process, so nothing is sharded. Use the files in launch/accelerate unchanged."
            )


def is_sharded(parameter: Any) -> bool:
    """Whether this process holds only a shard of the parameter."""
    if hasattr(parameter, "ds_tensor"):  # ZeRO-3
        return parameter.ds_tensor.numel() < parameter.ds_numel
    return isinstance(parameter, DTensor) and parameter.to_local().numel() < parameter.numel()


def _is_set(variable: str) -> bool:
    """Whether an environment variable set by accelerate's launcher is true."""
    return bool(str_to_bool(os.environ.get(variable, "false")))
