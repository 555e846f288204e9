"""Peak memory of one optimiser step, measured in a separate process.

On a CPU, the result is the growth of the resident memory from the start of `train()` to its peak. glibc normally keeps
freed memory and reuses it, which changes the result by up to 5 %. Here `mallopt` makes every block of 64 KiB or more a
separate allocation that is returned when freed. The result then repeats to within 0.2 %, but the step takes several
times longer, so this step is not timed. On a GPU, the result is the maximum memory allocated by torch, including the
weights, and the maximum memory that its allocator reserved.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import gc
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from gbpo.run.data import loading as data

from .timed import MICRO_BATCH, Batch, Case, TimedGBPO, TimedGRPO, make_trainer

_M_MMAP_THRESHOLD = -3
_OWN_BLOCK = 64 * 1024  # bytes

_CLEAR_PEAK = "5"  # this value, written to /proc/self/clear_refs, resets the peak of the resident memory


def peaks(case: Case, model: Any) -> dict[str, int]:
    """Peak memory of a step on this case in bytes, for `ours` and `trl`; on a GPU also `ours_reserved` and
    `trl_reserved`.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(_measure, case, model).result()


def _measure(case: Case, model: Any) -> dict[str, int]:
    data.quiet()
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK)
    warm_up = dataclasses.replace(case, completions=2 * MICRO_BATCH)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"ours": TimedGBPO, "trl": TimedGRPO}
        for kind in kinds.values():  # loads what stays in memory after the first step
            make_trainer(kind, copy.deepcopy(model), Batch(warm_up), folder).train()
        for name, kind in kinds.items():
            trainer = make_trainer(kind, copy.deepcopy(model), Batch(case), folder)
            found[name] = _peak_of(trainer)
            if torch.cuda.is_available():
                found[f"{name}_reserved"] = torch.cuda.max_memory_reserved()
            del trainer
    return found


def _peak_of(trainer: Any) -> int:
    gc.collect()  # earlier trainers are in reference cycles and would be freed during the step
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer.train()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # free but resident memory would hide the growth
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    trainer.train()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
