"""Checks the values of a recipe before a model is loaded.

A value is refused if it has the right type but would have no effect, or would make the run fail later.
"""

import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import TorchDynamoPlugin, str_to_bool
from huggingface_hub import get_token
from torch._inductor import list_mode_options
from transformers import GenerationConfig, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import IntervalStrategy
from trl import GRPOConfig, ModelConfig

from ...shared.nearest import nearest
from ...shared.packages import install_command
from ...trainer.config import CHOICES, check_choices, renamed_speedup
from ...trainer.passes.speedups import SPEEDUPS
from ...trainer.sampling.vllm_client import server_url


class _Range(NamedTuple):
    low: float
    high: float
    consequence: str
    low_allowed: bool = True

    def contains(self, value: float) -> bool:
        return (self.low <= value if self.low_allowed else self.low < value) and value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{self.low} or more" if self.low_allowed else "a positive number"
        return f"a value in {'[' if self.low_allowed else '('}{self.low}, {self.high}]"


_URL = re.compile(r"https?://[^/\s]+(/[^/\s]+)*(?<!/v1)$")  # OpenAI's interface is at /v1, the rest of vLLM above it
_NO_COMPLETION = "would give no completion"
# rewards for the form of a completion; they do not say how often a prompt is solved
_FORM_REWARDS = {"boxed", "cosine", "format", "length", "repetition", "soft_overlong"}
_RANGES = {
    "learning_rate": _Range(0, 1, "would learn nothing, or move away from the reward", low_allowed=False),
    "weight_decay": _Range(0, 1, "would make the weights grow instead of shrink"),
    "max_grad_norm": _Range(0, math.inf, "would flip the sign of every gradient"),
    "adam_epsilon": _Range(0, 1, "would let Adam divide by a negative number"),
    "warmup_steps": _Range(0, math.inf, "cannot be a number of steps"),
    "num_train_epochs": _Range(0, math.inf, "would take no step", low_allowed=False),
    "per_device_train_batch_size": _Range(1, math.inf, "would train on nothing"),
    "optimizer_batch_size": _Range(1, math.inf, "would take no step"),
    "gradient_accumulation_steps": _Range(1, math.inf, "would take no step"),
    "steps_per_generation": _Range(1, math.inf, _NO_COMPLETION),
    "generation_batch_size": _Range(1, math.inf, _NO_COMPLETION),
    "num_iterations": _Range(1, math.inf, "would train on no completion"),
    "num_generations_eval": _Range(1, math.inf, _NO_COMPLETION),
    "max_completion_length": _Range(1, math.inf, "would leave no token to learn from"),
    "max_tool_calling_iterations": _Range(1, math.inf, "would never run a tool that the model calls"),
    "temperature": _Range(0, math.inf, "does not give a distribution to sample from", low_allowed=False),
    "top_p": _Range(0, 1, "is not a fraction of the probability", low_allowed=False),
    "top_k": _Range(0, math.inf, "is not a number of tokens; 0 keeps all tokens"),
    "min_p": _Range(0, 1, "is not a fraction of the highest probability"),
    "repetition_penalty": _Range(0, math.inf, "would divide the logits by zero or flip their sign", low_allowed=False),
    "beta": _Range(0, math.inf, "would push the policy away from the reference model"),
    "logging_steps": _Range(0, math.inf, "would never log", low_allowed=False),
    "save_steps": _Range(0, math.inf, "would save at no step", low_allowed=False),
    "eval_steps": _Range(0, math.inf, "cannot be a number of steps", low_allowed=False),
    "save_total_limit": _Range(1, math.inf, "would keep no checkpoint"),
    "dataloader_num_workers": _Range(0, math.inf, "is not a number of processes"),
    "vllm_gpu_memory_utilization": _Range(0, 1, "is not a fraction of the GPU memory", low_allowed=False),
    "vllm_tensor_parallel_size": _Range(1, math.inf, "is not a number of GPUs"),
    "lora_r": _Range(1, math.inf, "would make adapters without weights"),
    "lora_alpha": _Range(0, math.inf, "would switch the adapters off", low_allowed=False),
    "lora_dropout": _Range(0, 1, "is not a probability"),
    **dict.fromkeys(("seed", "data_seed"), _Range(0, 2**32 - 1, "is not a seed that NumPy accepts")),
}


# field of an earlier version → the error that says what to write now
RENAMED = {name: renamed_speedup(name) for name in SPEEDUPS} | {
    "max_prompt_length": "TRL has removed max_prompt_length, so no prompt would be shortened. Write "
    "max_prompt_tokens: N, which drops prompts with more than N tokens.",
    "logging_dir": "transformers has removed logging_dir. TensorBoard's files are in output_dir, or in the folder that "
    "the environment variable TENSORBOARD_LOGGING_DIR names. Remove logging_dir.",
    "overwrite_output_dir": "transformers has removed overwrite_output_dir. A run never overwrites another one. Remove "
    "overwrite_output_dir.",
    "group_by_length": "transformers has removed group_by_length. It had no effect on GRPO. Remove group_by_length.",
}

# name of a field in other trainers → its name here
OTHER_NAMES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    **dict.fromkeys(("model", "model_name", "model_path"), "model_name_or_path"),
    **dict.fromkeys(("data", "data_path", "train_files"), "dataset_name"),
    **dict.fromkeys(("batch_size", "train_batch_size", "micro_batch_size"), "per_device_train_batch_size"),
    **dict.fromkeys(("group_size", "num_samples", "n_samples", "n"), "num_generations"),
    **dict.fromkeys(("max_tokens", "max_new_tokens", "max_response_length"), "max_completion_length"),
    **dict.fromkeys(("kl", "kl_coef", "kl_loss_coef"), "beta"),
    **dict.fromkeys(("clip_range", "clip_ratio", "cliprange"), "epsilon"),
    **dict.fromkeys(("rewards", "reward_function", "reward_model_name_or_path"), "reward_funcs"),
    "lora_rank": "lora_r",
    "torch_dtype": "dtype",
    "no_cuda": "use_cpu",
}

# losses that algorithm: grpo can use
_GRPO_LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")

# start of the optimiser's name → the package it needs
_OPTIMIZERS = {
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    **dict.fromkeys(("adamw_bnb", "adamw_8bit", "ademamix", "lion", "paged", "rmsprop_"), "bitsandbytes"),
    **dict.fromkeys(("lomo", "adalomo"), "lomo_optim"),
    "galore": "galore_torch",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "apollo": "apollo_torch",
    "stable_adamw": "optimi",
}


def check_numbers(values: Mapping[str, Any]) -> None:
    """Check given numbers that the trainer's configuration would replace, or refuse without their name.

    Call this before the configuration is built.

    Args:
        values: The given fields of the trainer.

    Raises:
        ValueError: A number is infinite or NaN, or `eval_steps` is 0. `max_grad_norm` may be infinite.
    """
    for name, value in values.items():
        numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, float)]
        if not all(map(math.isfinite, numbers)) and (name, value) != ("max_grad_norm", math.inf):
            raise ValueError(
                f"{name}={value} is not finite, so the loss would become NaN, or the field would have no effect. Write "
                "a finite number."
            )
    if values.get("eval_steps") == 0:
        raise ValueError(
            "eval_steps=0 would be replaced by logging_steps. Write a number of steps, or remove eval_steps to "
            "evaluate at every log."
        )


def check_fields(given: set[str], run: Any, args: GRPOConfig, model: ModelConfig) -> None:
    """Check the values of a parsed recipe, alone and in combination.

    Args:
        given: Names of the fields that the recipe or the command line sets.
        run: The `RunArguments` of the recipe.
        args: The recipe's configuration of the trainer.
        model: The recipe's configuration of the model.

    Raises:
        ValueError: A value cannot be used. The message names the first such value.
    """
    if run.algorithm == "grpo":
        own = {"target_baseline", "loss_type"}
        check_choices(
            args, {name: CHOICES[name] for name in CHOICES if name not in own} | {"loss_type": _GRPO_LOSSES}, "GRPO"
        )
    for name, limits in _RANGES.items():
        value = getattr(model if name.startswith("lora_") else args, name)
        if value is not None and not limits.contains(value):  # NaN is in no range
            raise ValueError(f"{name}={value!r} {limits.consequence}. Write {limits}.")
    if args.max_steps == 0 or args.max_steps < -1:
        raise ValueError(
            f"max_steps={args.max_steps} would be ignored: num_train_epochs={args.num_train_epochs:g} would set the "
            "steps. Write 1 or more, or -1 and num_train_epochs."
        )
    if args.load_best_model_at_end and args.eval_strategy == "no":
        raise ValueError(
            "load_best_model_at_end=True has no evaluations to compare, because eval_strategy is 'no'. Write "
            "eval_strategy: steps, or remove load_best_model_at_end."
        )
    if args.save_strategy == "best" and (args.eval_strategy == "no" or args.metric_for_best_model is None):
        raise ValueError(
            f"save_strategy='best' with eval_strategy={IntervalStrategy(args.eval_strategy).value!r} and "
            f"metric_for_best_model={args.metric_for_best_model!r} does not say which checkpoint is best. Write "
            "eval_strategy: steps and metric_for_best_model: eval_reward, or save_strategy: steps."
        )
    if args.fp16 and args.device.type == "cpu":
        raise ValueError("fp16=True does not run on the CPU. Write bf16: true, or neither.")
    _check_needed(given)
    _check_split(run)
    _check_images(run, args)
    _check_adapters(run, args, model)
    _check_checkpointing(args)
    _check_schedule(args)
    _check_compilation(args)
    _check_upload(args)
    _check_vllm(args)
    _check_packages(args, model)
    if not args.use_vllm:
        for name in args.generation_kwargs or {}:
            if not hasattr(_GENERATION, name):
                raise ValueError(
                    f"generation_kwargs={args.generation_kwargs} names {name!r}, which is not a generation option. "
                    f"Did you mean {nearest(name, vars(_GENERATION))!r}?"
                )


_GENERATION = GenerationConfig()


def _check_needed(given: set[str]) -> None:
    """Raise `ValueError` for a field of LoRA, vLLM or evaluation whose feature is not enabled."""
    needs = {name: "use_peft" for name in given if name.startswith("lora_") or name in ("use_dora", "use_rslora")}
    needs |= dict.fromkeys(("bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"), "load_in_4bit")
    corrections = "vllm_importance_sampling_"  # they may also correct what transformers sampled
    needs |= {
        name: "use_vllm"
        for name in given
        if name.startswith("vllm_")
        and not (name.startswith(corrections) and given & {"generate_ahead", "sampling_dtype"})
    }
    if "use_vllm" in given:  # by default vLLM runs on the trainer's GPUs
        needs |= dict.fromkeys((name for name in given if name.startswith("vllm_server_")), "vllm_mode")
    if "environment" not in given:
        needs |= dict.fromkeys(("tool_timeout", "max_tool_calling_iterations"), "tools")
    needs["environment_kwargs"] = "environment"
    needs |= dict.fromkeys(("eval_steps", "num_generations_eval", "eval_dataset_name"), "eval_strategy")
    for name in sorted(given & needs.keys()):
        if needs[name] not in given:
            switch = {
                "eval_strategy": "eval_strategy: steps",
                "vllm_mode": "vllm_mode: server",
                "tools": "tools: [builtin:python]",
                "environment": "environment: builtin:code_word",
            }.get(needs[name], f"{needs[name]}: true")
            raise ValueError(
                f"{name} is given, but has no effect without {needs[name]}. Write {switch}, or remove {name}."
            )


def _check_split(run: Any) -> None:
    """Raise `ValueError` for a split of a file, which has none. It may be the split of `eval_dataset_name`."""
    is_file = Path(run.dataset_name).expanduser().is_file()
    if run.dataset_train_split != "train" and is_file and not run.eval_dataset_name:
        raise ValueError(
            f"dataset_train_split={run.dataset_train_split!r} would be ignored: {run.dataset_name!r} is a file, and "
            "all of its rows are read. Remove dataset_train_split, and write a smaller file."
        )


def _check_images(run: Any, args: Any) -> None:
    """Raise `ValueError` if images cannot be read, or for an option that does not work with them."""
    if run.image_column is None:
        return
    if find_spec("PIL") is None:
        raise ValueError(
            f"image_column={run.image_column!r} needs Pillow, which is not installed, so no image could be read: "
            "pip install pillow."
        )
    if "reward_model" in (run.reward_funcs or ()):
        raise ValueError(
            f"reward_funcs={run.reward_funcs} with image_column={run.image_column!r}: reward_model cannot send images, "
            "so its server could not grade the completions. Remove reward_model, or use judge, which grades the text."
        )
    reasons = {
        "generate_ahead": "images are not sampled ahead",
        "sampling_dtype": "the log-probs of completions with images are not kept",
        "resample_zero_signal_groups": "images are not resampled",
        "use_transformers_continuous_batching": "transformers would generate without the images",
        "max_tokens_per_micro_batch": "rows with images run in TRL's micro-batches. Write a smaller "
        "per_device_train_batch_size for smaller passes",
    }
    for name, reason in reasons.items():
        if getattr(args, name, None):
            raise ValueError(
                f"{name}={getattr(args, name)} cannot be used with image_column={run.image_column!r}: {reason}. Remove "
                f"{name} or image_column."
            )


def _check_checkpointing(args: GRPOConfig) -> None:
    if args.resume_from_checkpoint and args.sync_ref_model:
        raise ValueError(
            f"resume_from_checkpoint={args.resume_from_checkpoint!r} with sync_ref_model: true would continue with "
            "another reference model, because checkpoints do not store the synced reference model. Remove one of the "
            "two fields."
        )
    for name in ("every_n_layers", "offload"):  # TRL passes these on to torch only after the first generation
        if name in (args.activation_checkpointing_kwargs or {}):
            raise ValueError(
                f"activation_checkpointing_kwargs={args.activation_checkpointing_kwargs}: {name} fails after the first "
                f"generation in TRL 1.16. Remove {name}."
            )


def _check_adapters(run: Any, args: GRPOConfig, model: ModelConfig) -> None:
    if run.merge_adapter and not model.use_peft:
        raise ValueError(
            "merge_adapter=True without use_peft has no adapter to merge: all weights are trained and saved. Remove "
            "merge_adapter, or write use_peft: true."
        )
    if run.merge_adapter and model.load_in_8bit:
        raise ValueError(
            "merge_adapter=True with load_in_8bit=True would save a model that differs from the trained one, because "
            "8-bit training also rounds activations. Write load_in_4bit: true, or remove merge_adapter."
        )
    if model.use_peft and model.lora_task_type != "CAUSAL_LM":
        raise ValueError(f"lora_task_type={model.lora_task_type!r} does not build a language model. Write CAUSAL_LM.")
    bits = next((name for name in ("load_in_4bit", "load_in_8bit") if getattr(model, name)), None)
    if bits is None:
        return
    if args.use_vllm and args.vllm_mode == "colocate":
        raise ValueError(
            f"{bits}=True with vllm_mode='colocate': TRL 1.16 cannot send quantised weights to vLLM, so the first "
            f"generation would fail. Write vllm_mode: server, which gets only the adapter, use_vllm: false, or remove "
            f"{bits}."
        )
    whole = next((name for name in ("use_dora", "lora_modules_to_save") if getattr(model, name)), None)
    if args.use_vllm and whole is not None:
        raise ValueError(
            f"{whole}={getattr(model, whole)!r} with {bits}=True and use_vllm=True: vLLM cannot run this adapter, and "
            f"quantised weights cannot be sent to it. Remove {whole}, or write use_vllm: false."
        )
    if not model.use_peft:
        raise ValueError(f"{bits}=True without use_peft: quantised weights cannot be trained. Write use_peft: true.")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"{bits}=True needs bitsandbytes, which is not installed: pip install bitsandbytes.")
    if model.dtype == "auto":
        raise ValueError(f"dtype='auto' gives {bits} no type to compute in. Write dtype: bfloat16.")


def _check_schedule(args: GRPOConfig) -> None:
    """Raise `ValueError` if `lr_scheduler_kwargs` do not fit the schedule, which is built after the model is loaded."""
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if args.lr_scheduler_kwargs and name in ("constant", "constant_with_warmup"):
        raise ValueError(
            f"lr_scheduler_kwargs={args.lr_scheduler_kwargs} would be ignored, because lr_scheduler_type={name!r} has "
            "no options. Remove lr_scheduler_kwargs; warmup_steps sets the warm-up."
        )
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 0, 1, scheduler_specific_kwargs=args.lr_scheduler_kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"lr_scheduler_kwargs={args.lr_scheduler_kwargs} does not fit lr_scheduler_type={name!r}: {error}. Correct "
            "lr_scheduler_kwargs, or write another lr_scheduler_type."
        ) from None


def _check_compilation(args: GRPOConfig) -> None:
    if not args.torch_compile:
        return
    try:
        TorchDynamoPlugin(backend=args.torch_compile_backend)
    except ValueError as error:
        raise ValueError(
            f"torch_compile_backend={args.torch_compile_backend!r} cannot compile the model: {error}. Write inductor, "
            "or remove torch_compile_backend."
        ) from None
    mode = args.torch_compile_mode
    if mode and mode not in (modes := list_mode_options()):
        raise ValueError(
            f"torch_compile_mode={mode!r} is not a mode of torch.compile, so the first pass would fail. Write one of "
            f"{', '.join(modes)}, or remove torch_compile_mode."
        )


def _check_upload(args: GRPOConfig) -> None:
    if args.push_to_hub and not (args.hub_token or get_token()):
        raise ValueError(
            "push_to_hub=True without a token of the Hugging Face Hub could not upload the model. Run hf auth login, "
            "set HF_TOKEN, or remove push_to_hub."
        )


def _check_vllm(args: GRPOConfig) -> None:
    """Raise `ValueError` for a server address that is no URL, or engines that do not divide the processes."""
    if not args.use_vllm:
        return
    if args.vllm_mode == "colocate" and args.world_size % args.vllm_tensor_parallel_size:
        raise ValueError(
            f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size} does not divide the number of processes, "
            f"{args.world_size}: each engine runs in as many processes. Write a divisor of {args.world_size}, or start "
            "more processes."
        )
    if args.vllm_mode == "server" and not _URL.match(server_url(args)):
        name = "vllm_server_host" if args.vllm_server_base_url is None else "vllm_server_base_url"
        raise ValueError(
            f"{name}={getattr(args, name)!r} gives the address {server_url(args)}, where no vLLM server answers. Write "
            "vllm_server_host: NAME without http:// and port, or vllm_server_base_url: http://NAME:PORT."
        )


def check_deepspeed(config: str | dict[str, Any] | None) -> None:
    """Raise `ValueError` if the recipe or the launcher asks for DeepSpeed and it cannot be used.

    Call this before the trainer's configuration is built, because building the configuration changes accelerate's state
    in this process.
    """
    launched = str_to_bool(os.environ.get("ACCELERATE_USE_DEEPSPEED", "false"))
    asked = f"deepspeed={config!r}" if config else "accelerate launch asks for DeepSpeed"
    if config and isinstance(config, str) and not Path(config).expanduser().is_file():
        raise ValueError(
            f"{asked} is not a file. Give the path of a JSON file, or launch with launch/accelerate/zero2.yaml."
        )
    if (config or launched) and find_spec("deepspeed") is None:
        raise ValueError(f"{asked}, which is not installed: {install_command('deepspeed')}.")


def check_fsdp(option: str | bool | None) -> None:
    """Raise `ValueError` if the recipe asks for FSDP in a single process. Call this as `check_deepspeed`."""
    if option and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise ValueError(
            f"fsdp={option!r} in one process has nothing to shard. Remove fsdp, and start several processes with "
            "accelerate launch --config_file launch/accelerate/fsdp2.yaml."
        )


def _check_packages(args: GRPOConfig, model: ModelConfig) -> None:
    if args.use_vllm and find_spec("vllm") is None:
        raise ValueError(
            f"use_vllm=True needs vLLM, which is not installed: {install_command('vllm')}, or write use_vllm: false"
            + (" and ratio_anchor: trainer." if getattr(args, "ratio_anchor", "trainer") == "sampler" else ".")
        )
    if args.use_liger_kernel and find_spec("liger_kernel") is None:
        raise ValueError(
            "use_liger_kernel=True needs liger-kernel, which is not installed: pip install liger-kernel, or remove it."
        )
    optimizer = getattr(args.optim, "value", args.optim)
    package = next((package for start, package in _OPTIMIZERS.items() if optimizer.startswith(start)), None)
    if package is not None and find_spec(package) is None:
        raise ValueError(f"optim={optimizer!r} needs {package}, which is not installed: pip install {package}.")
    for logger in args.report_to:
        if logger not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"report_to={logger!r} is not a logger that transformers knows. Write none, or one of "
                f"{', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
            )
        if logger not in get_available_reporting_integrations():
            raise ValueError(f"report_to={logger!r} is not installed: pip install {logger}, or remove {logger!r}.")


def form_rewards(names: Sequence[str]) -> set[int]:
    """The places of the rewards for the form in `reward_funcs`."""
    return {place for place, name in enumerate(names) if name in _FORM_REWARDS}


def check_difficulty(difficulty: Any, names: Sequence[str], rewards: int) -> None:
    """Raise `ValueError` if `difficulty` is given, and none of the rewards says whether an answer is right.

    Args:
        difficulty: The option.
        names: The field `reward_funcs`.
        rewards: Number of all rewards, with those of the environments.
    """
    if difficulty and len(form_rewards(names)) == rewards:
        raise ValueError(
            f"difficulty={difficulty} reads the solve rate from a reward, but reward_funcs={list(names)} grades only "
            "the form of a completion, which does not say whether an answer is right. Add a reward that grades the "
            "answer, or remove difficulty."
        )


def check_reward_names(names: Sequence[str]) -> None:
    """Raise `ValueError` if two rewards have the same name, which metrics and rollouts use as a key."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"Two rewards are functions named {name!r}, so rewards/{name}/mean would mix them. Rename one of them."
            )


def check_reward_weights(weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Raise `ValueError` if the number of weights differs from the number of rewards."""
    if weights is not None and len(weights) != len(names):
        raise ValueError(
            f"reward_weights={list(weights)} has {len(weights)} weights for {len(names)} reward(s): "
            f"{', '.join(names)}. Write one weight per reward, in the same order."
        )


def check_writable(folder: Path) -> None:
    """Raise `ValueError` if `folder` cannot be created. Nothing is left on the disk."""
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        raise ValueError(
            f"output_dir={str(folder)!r} cannot be written: {error.strerror} in {parent}. Give another folder."
        ) from None
