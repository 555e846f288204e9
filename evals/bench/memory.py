"""Peak memory of one optimiser step, in a process of its own.

On a CPU: growth of the resident memory from the start of `train()` to its highest point. glibc keeps freed memory and
hands it out again, which blurs that by 5 %; here every block of 64 KiB or more is the kernel's own and goes back when
freed (`mallopt`), which makes the figure repeat to 0.2 % and the step several times slower, so that nothing is timed
here. With a GPU: the most that torch has held on it, weights included.
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

_CLEAR_PEAK = "5"  # what /proc/self/clear_refs takes to forget the highest resident memory


def peaks(case: Case, model: Any) -> dict[str, int]:
    """Bytes that a step on this case takes with either trainer, by the names `ours` and `trl`."""
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
        for kind in kinds.values():  # what is loaded and kept from the first step on
            make_trainer(kind, copy.deepcopy(model), Batch(warm_up), folder).train()
        for name, kind in kinds.items():
            trainer = make_trainer(kind, copy.deepcopy(model), Batch(case), folder)
            found[name] = _peak_of(trainer)
            del trainer
    return found


def _peak_of(trainer: Any) -> int:
    gc.collect()  # the trainers before it, which hold themselves, would be freed within the step
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer.train()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what is free and resident would be used unseen
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    trainer.train()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
