"""Seconds per generation with a server that samples while the trainer trains (`generate_ahead`).

Server and trainer run on a core each. The server is vLLM where it is installed. The number of optimiser steps per
generation then sets how long training takes, so that sampling takes about 0.5, 1 or 2 times as long. Elsewhere a
stand-in server answers each request after a fixed time, which sets how long sampling takes. `trl.GRPOTrainer` in server
mode is the baseline: it waits for the server, and its passes are slower. The runs of this project use GRPO's loss too.
G and T are the times of sampling and of training in the run with K = 0, and the ideal gain is (G + T) / max(G, T).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from gbpo.run.models.tiny import character_tokenizer
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig

from .measuring import BenchResult, Measurement, bench_result
from .timed import random_model
from .vllm_server import vllm_server, weights_by_file

_RATIOS = (0.5, 1.0, 2.0)  # sampling / training
_AHEAD = (0, 1, 2)


class _Load(NamedTuple):
    """What each run of one case does: the model, the optimiser steps per generation, and the completions' length."""

    model: str
    updates: int
    length: int
    generations: int


def run(options: argparse.Namespace) -> BenchResult:
    """Measure each ratio of sampling to training, with each K and with TRL."""
    ratios, lengths = ((1.0,), (0, 1)) if options.quick else (_RATIOS, _AHEAD)
    cases = _with_vllm if find_spec("vllm") else _with_stand_in
    found, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        base = _Load(model, updates=2 if options.quick else 8, length=8, generations=1 if options.quick else 6)
        tokenizer = character_tokenizer()
        # vLLM's CPU build reloads no tied LM head
        random_model(vocab_size=len(tokenizer), tie_word_embeddings=False).save_pretrained(model)
        tokenizer.save_pretrained(model)
        for ratio, server, load in cases(base, ratios):
            runs: dict[str, list[dict[str, float]]] = {}
            for _ in range(options.repeats):
                for name, ahead in [("TRL", 0), *((f"K = {ahead}", ahead) for ahead in lengths)]:
                    with server() as url:
                        taken = _seconds(load, url, "trl" if name == "TRL" else "gbpo", ahead)
                    runs.setdefault(name, []).append({part: median(values) for part, values in taken.items()})
            case, sync = f"G/T {ratio:g}", runs["K = 0"]
            sampling, training = (median(one[part] for one in sync) for part in ("waiting", "training"))
            notes.append(f"{case}: G is {sampling:.2f} s, and T is {training:.2f} s for {load.updates} optimiser steps")
            ideal = [one["whole"] / max(one["waiting"], one["training"]) for one in sync]
            found += [Measurement(f"{case}, {name}", [one["whole"] for one in own], "s") for name, own in runs.items()]
            for name in [f"K = {ahead}" for ahead in lengths]:
                waiting = [one["waiting"] / one["whole"] for one in runs[name]]
                found.append(Measurement(f"{case}, {name}, share of waiting", waiting, ""))
            for name in [f"K = {ahead}" for ahead in lengths if ahead]:
                gains = [slow["whole"] / fast["whole"] for slow, fast in zip(sync, runs[name], strict=True)]
                shares = [gain / best for gain, best in zip(gains, ideal, strict=True)]
                found.append(Measurement(f"{case}, {name}, gain over K = 0", gains, "×"))
                found.append(Measurement(f"{case}, {name}, share of the ideal gain", shares, ""))
    vllm = packages_distributions().get("vllm")
    notes.append(f"the server is {vllm[0]} {version(vllm[0])}" if vllm else "the server is a stand-in for vLLM")
    return bench_result(found, notes)


_Case = tuple[float, Callable[[], AbstractContextManager[str]], _Load]


def _with_vllm(base: _Load, ratios: Sequence[float]) -> Iterator[_Case]:
    """One server for all cases. The number of optimiser steps sets the ratio."""
    log = Path(base.model).parent / "server.log"
    flags = ("--max-model-len", "128")
    with vllm_server(base.model, log, *flags, prefix=_on_core(0, []), VLLM_CPU_OMP_THREADS_BIND=_core(0)) as server:
        load = base._replace(length=32)
        taken = _seconds(load, server.url, "gbpo", 0)
        sampling, update = min(taken["waiting"]), min(taken["training"]) / load.updates
        for ratio in ratios:
            updates = max(1, round(sampling / ratio / update))
            yield ratio, lambda: nullcontext(server.url), load._replace(updates=updates)


def _with_stand_in(base: _Load, ratios: Sequence[float]) -> Iterator[_Case]:
    """A server for each run. The time of its answers sets the ratio."""
    with _stand_in(base.model, seconds=0.0) as url:
        training = min(_seconds(base, url, "gbpo", 0)["training"])
    for ratio in ratios:
        yield ratio, partial(_stand_in, base.model, ratio * training), base


@contextmanager
def _stand_in(model: str, seconds: float) -> Iterator[str]:
    """The address of a stand-in server on the first core."""
    command = [sys.executable, "-m", f"{__package__}.stand_in", model, "--port", "0", "--seconds", str(seconds)]
    with subprocess.Popen(_on_core(0, command), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)


def _seconds(load: _Load, url: str, trainer: str, ahead: int) -> dict[str, list[float]]:
    """The times of each generation after the first `ahead` + 1, by a process on the second core."""
    options = load._asdict() | {"url": url, "trainer": trainer, "ahead": ahead}
    options["generations"] += ahead + 1
    command = _on_core(1, [sys.executable, "-m", f"{__package__}.ahead", json.dumps(options)])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    times = json.loads(done.stdout.splitlines()[-1])
    return {name: values[ahead + 1 :] for name, values in times.items()}


def _on_core(number: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", _core(number), *command]


def _core(number: int) -> str:
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[number % len(cores)])


class _Clock(TrainerCallback):
    """Records the wall time of each generation, and the seconds in which the trainer waited for the server."""

    def __init__(self, updates: int) -> None:
        self._updates = updates
        self.times: dict[str, list[float]] = {"whole": [], "waiting": [], "training": []}
        self._begun = time.perf_counter()
        self._waited = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._waited += sum((logs or {}).get(f"time/{phase}", 0.0) for phase in ("wait", "generate"))
        if state.global_step % self._updates == 0 and "loss" in (logs or {}):
            now = time.perf_counter()
            self.times["whole"].append(now - self._begun)
            self.times["waiting"].append(self._waited)
            self.times["training"].append(now - self._begun - self._waited)
            self._begun, self._waited = now, 0.0


def main(arguments: str) -> None:
    """Train, and print the times of each generation as JSON."""
    options = json.loads(arguments)
    own = options["trainer"] == "gbpo"
    config = (BaseConfig if own else GRPOConfig)(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        max_steps=options["updates"] * options["generations"],
        num_train_epochs=1000,
        per_device_train_batch_size=32,
        num_generations=8,
        num_iterations=options["updates"],
        max_completion_length=options["length"],
        learning_rate=1e-5,
        activation_checkpointing=False,
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url=options["url"],
        **({"generate_ahead": options["ahead"]} if own else {}),
    )
    prompts = [" ".join(str((7 * i + j) % 10) for j in range(30)) for i in range(64)]
    clock = _Clock(options["updates"])
    trainer = (BaseTrainer if own else GRPOTrainer)(
        options["model"], _length, config, train_dataset=Dataset.from_dict({"prompt": prompts}), callbacks=[clock]
    )
    trainer.train()
    print(json.dumps(clock.times), flush=True)
    os._exit(0)  # without waiting for the requests that no generation needs


def _length(completions: list[str], **kwargs: Any) -> list[float]:
    return [float(len(set(completion))) for completion in completions]


if __name__ == "__main__":
    with weights_by_file():
        main(sys.argv[1])
