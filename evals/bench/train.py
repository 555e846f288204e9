"""Forward and backward pass of one optimiser step, for `GBPOTrainer` and TRL's `GRPOTrainer` on the same batch.

Both run with `train()`, one optimiser step per call. A `rollout_func` supplies the completions and a list the rewards.
The optimiser is SGD with learning rate 0, so all steps have the same weights. GBPO runs with settings that make its
gradient equal to GRPO's (`target_baseline: mean`, `target_temperature: 0`, `overshoot_slope: 0`).

- Seconds: all `training_step`s of the step, without generation, rewards and optimiser. The trainers and the limit are
  measured alternately, after one step each as a warm-up.
- Limit: the time that the useful tokens alone need. These are the tokens of rows with a signal, that is of groups whose
  rewards differ. The benchmark times a forward and backward pass over the same number of rows, all
  of the mean length. The micro-batches have the same size as in the step. There is no padding, loss or metric. TRL's
  code computes the log-probs and entropies. The time is corrected for rounding the mean length.
- Gradient error: ‖ours - TRL's‖ / ‖TRL's‖ of the accumulated gradient before the optimiser, in float64.
- Memory: see memory.py.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import TrainerCallback

from . import memory
from .measuring import BenchResult, spread
from .timed import MICRO_BATCH, Batch, Case, TimedGBPO, TimedGRPO, bench_model, make_trainer, now, random_model

# The first case is like the recipes for GPUs.
_CASES = [Case("skewed", 3 / 8, group=8)]
_CASES += [Case(lengths, zero_signal) for lengths in ("skewed", "uniform") for zero_signal in (0.0, 0.5, 0.8)]
_GROWN = Case("skewed", 0.5)
_QUICK = Case("skewed", 0.5, completions=16, mean_length=12)

_LONG = 4  # the large model gets completions that are longer by this factor

# peak of dense bfloat16 operations per second; the key is a part of the device name
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


def run(options: argparse.Namespace) -> BenchResult:
    """Measure every case, or how the cost grows."""
    large = options.model != "small"
    if large and not torch.cuda.is_available():
        raise SystemExit(f"python -m evals.bench train: --model {options.model} needs a GPU, and torch finds none.")
    cases = {case.name: case for case in _CASES}
    if large:
        cases = {name: _scaled(case, 1, _LONG) for name, case in cases.items()}
    if options.growth:
        start = _QUICK if options.quick else cases[_GROWN.name]
        cases = {f"{n} x completions": _scaled(start, n, 1) for n in (1, 2, 4, 8)}
        cases |= {f"{n} x length": _scaled(start, 1, n) for n in (2, 4)}
    elif options.quick:
        cases = {_QUICK.name: _QUICK}
    model = _qwen() if large else bench_model(options.quick)
    results = []
    for name, case in cases.items():
        result = compare(name, case, model, options.repeats)
        print(f"{name}: {result['speedup']:.2f} times as fast as TRL", file=sys.stderr, flush=True)
        results.append(result)
    return BenchResult(_COLUMNS, [_row(result) for result in results], results)


def _scaled(case: Case, completions: int, length: int) -> Case:
    return replace(case, completions=completions * case.completions, mean_length=length * case.mean_length)


def compare(name: str, case: Case, model: Any, repeats: int) -> dict[str, Any]:
    """Measure one case. Returns its entry in the JSON file."""
    batch = Batch(case)
    with tempfile.TemporaryDirectory() as folder:
        ours = _Contender(make_trainer(TimedGBPO, copy.deepcopy(model), batch, folder))
        trl = _Contender(make_trainer(TimedGRPO, copy.deepcopy(model), batch, folder))
        limit = _UsefulTokens(trl.trainer, batch)
        error = _distance(ours.step().gradient, trl.step().gradient)
        limit.seconds()
        taken: dict[str, list[float]] = {"ours": [], "trl": [], "limit": []}
        for _ in range(repeats):
            taken["ours"].append(ours.step().seconds)
            taken["trl"].append(trl.step().seconds)
            taken["limit"].append(limit.seconds())
    del ours, trl, limit.trainer  # frees the GPU memory for the next pair
    peaks = memory.peaks(case, model)
    medians = {key: statistics.median(values) for key, values in taken.items()}
    tokens = sum(map(len, batch.prompt_ids)) + sum(map(len, batch.completion_ids))
    return {
        "case": name,
        "ours_seconds": medians["ours"],
        "trl_seconds": medians["trl"],
        "speedup": medians["trl"] / medians["ours"],
        "gradient_error": error,
        "limit_ratio": medians["ours"] / medians["limit"],
        "memory_ratio": peaks["ours"] / peaks["trl"],
        "limit_seconds": medians["limit"],
        "spread": {key: [min(values), max(values)] for key, values in taken.items()},
        "repeats": repeats,
        "ours_peak_bytes": peaks["ours"],
        "trl_peak_bytes": peaks["trl"],
        **{f"{name}_bytes": size for name, size in peaks.items() if name.endswith("reserved")},
        "rows": case.completions,
        "useful_rows": len(batch.useful),
        "tokens": tokens,
        "useful_tokens": limit.tokens,
        "loss_type": case.loss_type,
        **(_throughput(model, batch, medians) if torch.cuda.is_available() else {}),
    }


def _distance(ours: torch.Tensor, trl: torch.Tensor) -> float:
    return ((ours - trl).norm() / trl.norm()).item()


class _KeepGradient(TrainerCallback):
    """Keeps the accumulated gradient of the last optimiser step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


@dataclass
class _Step:
    seconds: float
    gradient: torch.Tensor


class _Contender:
    """A trainer and the measurement of its steps."""

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._keep = _KeepGradient()
        trainer.add_callback(self._keep)

    def step(self) -> _Step:
        self.trainer.train()
        return _Step(self.trainer.optimisation(), self._keep.gradient)


class _UsefulTokens:
    """The rows of a batch that have a signal, all with their mean length and without padding."""

    def __init__(self, trainer: Any, batch: Batch):
        self.trainer = trainer
        rows = batch.useful
        self.tokens = sum(prompt + completion for prompt, completion in rows)
        self._prompt, self._completion = (round(statistics.fmean(lengths)) for lengths in zip(*rows, strict=True))
        self._sizes = [min(MICRO_BATCH, len(rows) - start) for start in range(0, len(rows), MICRO_BATCH)]

    def seconds(self) -> float:
        """Seconds of the forward and backward pass over `tokens` tokens."""
        model = self.trainer.model
        model.train()
        length = self._prompt + self._completion
        start = now()
        for rows in self._sizes:
            ids = torch.full((rows, length), 7, device=model.device)
            logps = self.trainer._get_per_token_logps_and_entropies(
                model, ids, torch.ones_like(ids), self._completion, compute_entropy=True
            )[0]
            logps.mean().backward()
        taken = now() - start
        model.zero_grad()
        return taken * self.tokens / (sum(self._sizes) * length)


def _throughput(model: Any, batch: Batch, medians: dict[str, float]) -> dict[str, Any]:
    """Tokens per second (without padding) and model FLOPs utilisation of both trainers on a GPU."""
    config = model.config
    lengths = [len(p) + len(c) for p, c in zip(batch.prompt_ids, batch.completion_ids, strict=True)]
    weights = model.num_parameters()  # the embedding is tied to the LM head, so it counts once
    attention = (
        6 * config.num_hidden_layers * config.hidden_size
    )  # half of 12 · layers · width · length, because attention is causal
    operations = sum(6 * weights * length + attention * length**2 for length in lengths)
    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in _PEAK_FLOPS.items() if name in device), None)
    found: dict[str, Any] = {}
    for name in ("ours", "trl"):
        found[f"{name}_tokens_per_second"] = sum(lengths) / medians[name]
        found[f"{name}_mfu"] = None if peak is None else operations / medians[name] / peak
    return found


def _qwen() -> Any:
    """A random model with the shape of Qwen2.5-0.5B, in bfloat16."""
    return random_model(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
    ).to(torch.bfloat16)


_COLUMNS = ("case", "ours s", "min..max", "TRL s", "min..max", "speed-up", "/ limit", "memory", "gradient error")


def _row(result: dict[str, Any]) -> list[str]:
    return [
        result["case"],
        f"{result['ours_seconds']:.4g}",
        spread(result["spread"]["ours"]),
        f"{result['trl_seconds']:.4g}",
        spread(result["spread"]["trl"]),
        f"{result['speedup']:.2f}",
        f"{result['limit_ratio']:.2f}",
        f"{result['memory_ratio']:.3f}",
        f"{result['gradient_error']:.1e}",
    ]
