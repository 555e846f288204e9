"""Runs the cells of a comparison as processes, some at a time, and evaluates what they leave."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from gbpo.run.models import catalogue as models
from gbpo.run.output import folder

from .cells import Point
from .folder import RECIPE, START, TEST, VALIDATION, Comparison, Home

ROOT = Path(__file__).resolve().parents[2]

_PROGRESS = re.compile(r"^.*\d+%\|.*?\| \d+/\d+ \[[^\]]*\]")
_END = re.compile(r"(?:gbpo|evals)[.\w]*: (?:error: (.*)|ended at (.*?); last checkpoint)")


class CellError(Exception):
    """Why a run or an evaluation ended, in one line."""


def run(comparison: Comparison) -> bool:
    """Run and evaluate every cell that is not done; True when it was interrupted.

    Raises:
        CellError: The starting model cannot be evaluated.
    """
    model = models.local_model(comparison.base.model.model_name_or_path)  # built once, before many ask for it
    cells = [(point, seed) for point, seed in comparison.cells if point.same_as is None]
    todo = [cell for cell in cells if not comparison.home(*cell).is_done]
    runner = _Runner(comparison, model)
    pool = concurrent.futures.ThreadPoolExecutor(comparison.jobs)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runner.evaluate([model], comparison.folder / START)
        with tqdm(total=len(cells), initial=len(cells) - len(todo), unit="cell") as bar:
            for future in concurrent.futures.as_completed([pool.submit(runner.run_cell, *cell) for cell in todo]):
                bar.write(future.result())
                bar.update()
    except KeyboardInterrupt:
        return True
    finally:
        runner.end()
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, previous)
    return False


def cell_command(comparison: Comparison, point: Point, seed: int) -> list[str]:
    """What runs a cell, or the one that stands for it."""
    point = point.same_as or point
    output = comparison.home(point, seed).run
    return [
        *comparison.launcher,
        str(ROOT / "launch" / "gbpo.py"),
        str(comparison.folder / RECIPE),
        *comparison.overrides,
        *cell_flags(point, comparison.eval_steps),
        f"--eval_dataset_name={comparison.folder / VALIDATION}",
        f"--seed={seed}",
        f"--output_dir={output}",
    ]


def cell_flags(point: Point, eval_steps: float | None) -> list[str]:
    """What makes a run a cell: it validates before its first step and every `eval_steps`, by default as its recipe says
    or else 20 times; it keeps its last and its best checkpoint, goes on where it was ended, and is not stopped by a
    collapse, which is a result.
    """
    args, given = point.recipe.training, point.recipe.given
    group = args.num_generations_eval or args.num_generations
    batch = max(args.per_device_train_batch_size // group, 1) * group
    every = eval_steps or (args.eval_steps if "eval_steps" in given else 0.05)  # below 1: that share of all steps
    return [
        *point.flags,
        *("--eval_strategy=steps", f"--eval_steps={every}", "--eval_on_start=true"),
        *([] if "per_device_eval_batch_size" in given else [f"--per_device_eval_batch_size={batch}"]),
        *("--save_strategy=steps", f"--save_steps={every}", "--save_total_limit=2"),
        *("--metric_for_best_model=eval_reward", "--greater_is_better=true"),
        *("--resume_from_checkpoint=auto", "--stop_on_collapse=false"),
    ]


class _Runner:
    """The processes of a comparison, which can all be ended."""

    def __init__(self, comparison: Comparison, model: str):
        self._comparison = comparison
        self._model = model
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(comparison.jobs):
            self._slots.put(slot)

    def run_cell(self, point: Point, seed: int) -> str:
        """Run a cell to its end and evaluate it; a line that says how it went."""
        home = self._comparison.home(point, seed)
        name = f"{point.name}, seed {seed}"
        slot = self._slots.get()
        try:
            home.path.mkdir(parents=True, exist_ok=True)
            if home.record["status"] != "done":
                self._train(home, cell_command(self._comparison, point, seed), slot)
            best = home.best_checkpoint()
            self.evaluate([str(path) for path in (home.run / folder.MODEL, best) if path], home.evaluation, slot)
            return f"{name}: done in {home.record['seconds']:.0f} s"
        except CellError as error:
            if not self._ended:
                home.write_record(**home.record | {"status": "failed", "reason": str(error)})
            return f"{name}: FAILED, {error}"
        finally:
            self._slots.put(slot)

    def _train(self, home: Home, command: list[str], slot: int) -> None:
        seconds = home.record["seconds"]
        if home.run.is_dir():  # of a comparison that was killed: its run may still be going
            with FileLock(home.run / ".lock"):
                pass
        if not _is_finished(home.run):
            if folder.last_checkpoint(home.run, folder.AUTO) is None:
                shutil.rmtree(home.run, ignore_errors=True)
            began = time.perf_counter()
            try:
                self._call(command, home.log, slot)
            finally:
                seconds += time.perf_counter() - began
                home.write_record(status="missing", seconds=seconds)
        home.write_record(status="done", seconds=seconds)

    def evaluate(self, names: list[str], output: Path, slot: int = 0) -> None:
        """Evaluate models on the test questions into `output`, unless that is there.

        Raises:
            CellError: The evaluation ended with an error.
        """
        if not output.is_file():
            command = [sys.executable, "-m", "evals.evaluate", *names, str(self._comparison.folder / TEST)]
            command += [*self._comparison.evaluation, f"--reference={self._model}", f"--output={output}"]
            self._call(command, output.with_suffix(".log"), slot)

    def _call(self, command: list[str], log: Path, slot: int) -> None:
        with self._lock:
            if self._ended:
                raise CellError("interrupted")
            with log.open("w") as file:
                print(shlex.join(command), file=file, flush=True)
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self._environment(slot),
                    start_new_session=True,  # so that all its processes can be ended
                )
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        if status:
            raise CellError("interrupted" if self._ended else _reason(log, status))

    def _environment(self, slot: int) -> dict[str, str]:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]  # so that evals is found from any directory
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        gpus = torch.cuda.device_count()
        if not gpus:
            env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._comparison.jobs)))
        elif self._comparison.jobs > 1 and self._comparison.launcher == [sys.executable]:
            visible = env.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
            env["CUDA_VISIBLE_DEVICES"] = visible[slot % gpus]
        return env

    def end(self) -> None:
        """End what still runs: first so that it can report how it ended, after a while at once."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            for process in running:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(process.poll() is None for process in running):
                time.sleep(0.1)


def last_lines(log: Path, count: int) -> list[str]:
    """What was printed last, without blank lines and progress bars."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [
        _PROGRESS.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in text.splitlines()[1:]
    ]  # after the command
    return [line for line in lines if line][-count:]


def _is_finished(run: Path) -> bool:
    """Whether a run has come to its end, as its own report says."""
    report = run / "report.txt"
    return report.is_file() and ": finished;" in report.read_text().splitlines()[-1]


def _reason(log: Path, status: int) -> str:
    """Why a program says that it ends; else its last line."""
    lines = last_lines(log, 200)
    said = [match[1] or match[2] for line in lines if (match := _END.search(line))]
    return f"exit status {status}: {(said or lines or ['it printed nothing'])[-1][:400]}"
