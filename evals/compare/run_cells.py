"""Run the cells of a comparison as parallel processes, and evaluate their models."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tqdm import tqdm

from gbpo.run.models import catalogue as models
from gbpo.run.output import folder
from gbpo.shared.packages import import_root
from gbpo.trainer.config import BaseConfig

from .cell_command import cell_command
from .cell_folder import CellFolder
from .plan import START, TEST, ComparisonPlan
from .point import Point
from .process_log import failure_reason
from .progress import progress

PROGRESS_SECONDS = 5.0  # between two looks at the running cells


class CellError(Exception):
    """A run or an evaluation failed. The message is one line."""


def run_cells(plan: ComparisonPlan) -> bool:
    """Run and evaluate every cell that is not done.

    Returns:
        Whether the user interrupted the comparison.

    Raises:
        CellError: The starting model cannot be evaluated.
    """
    model = models.local_model(plan.base.model.model_name_or_path)  # built before parallel runs need it
    # all points of a seed come together, so that an interrupted comparison has pairs
    cells = sorted(
        ((point, seed) for point, seed in plan.cells if point.same_as is None),
        key=lambda cell: plan.seeds.index(cell[1]),
    )
    todo = [cell for cell in cells if not plan.cell_folder(*cell).is_done]
    runner = _Runner(plan, model)
    pool = concurrent.futures.ThreadPoolExecutor(plan.jobs)
    previous = {number: signal.signal(number, runner.interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        runner.evaluate([model], plan.folder / START)
        waiting = {pool.submit(runner.run_cell, *cell) for cell in todo}
        with tqdm(total=len(cells), initial=len(cells) - len(waiting), unit="cell", disable=None) as bar:
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, PROGRESS_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    bar.write(future.result())
                sys.stdout.flush()  # a log file shows each line when its cell ends
                share, text = runner.progress()
                bar.n = round(len(cells) - len(waiting) + share, 1)
                bar.set_postfix_str(text)
    except KeyboardInterrupt:
        return True
    finally:
        runner.end()
        pool.shutdown(cancel_futures=True)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return False


class _Runner:
    """Starts the processes of a comparison, and can end all of them."""

    def __init__(self, plan: ComparisonPlan, model: str):
        self._plan = plan
        self._model = model
        self._running: set[subprocess.Popen] = set()
        self._active: dict[str, tuple[CellFolder, BaseConfig]] = {}  # cells that are trained or tested now, by name
        self._lock = threading.Lock()
        self._ended = False
        self._interrupts = 0
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(plan.jobs):
            self._slots.put(slot)

    def interrupt(self, number: int, frame: Any) -> None:
        """Handle a signal. The first raises KeyboardInterrupt; a later one makes `end` kill the processes at once."""
        self._interrupts += 1
        if self._interrupts == 1:
            raise KeyboardInterrupt

    def run_cell(self, point: Point, seed: int) -> str:
        """Run and evaluate a cell, and return a line about the result."""
        cell = self._plan.cell_folder(point, seed)
        name = f"{point.name}, seed {seed}"
        slot = self._slots.get()
        self._active[name] = cell, point.recipe.training
        try:
            cell.path.mkdir(parents=True, exist_ok=True)
            if cell.record["status"] != "done":
                self._train(cell, cell_command(self._plan, point, seed), slot)
            best = cell.best_checkpoint()
            self.evaluate([str(path) for path in (cell.run / folder.MODEL, best) if path], cell.evaluation, slot)
            return f"{name}: done in {cell.record['seconds']:.0f} s"
        except CellError as error:
            if not self._ended:
                cell.write_record(**cell.record | {"status": "failed", "reason": str(error)})
            return f"{name}: FAILED, {error}"
        finally:
            del self._active[name]
            self._slots.put(slot)

    def progress(self) -> tuple[float, str]:
        """How much of the active cells is done, as a number of cells, and what they do now."""
        found = {name: progress(*active) for name, active in list(self._active.items())}
        texts = [f"{name}: {text}" for name, (_, text) in found.items()]
        return sum(share for share, _ in found.values()), "; ".join(texts)

    def _train(self, cell: CellFolder, command: list[str], slot: int) -> None:
        seconds = cell.record["seconds"]
        if cell.run.is_dir():  # a run of a killed comparison may still be active, so wait for its end
            with FileLock(cell.run / ".lock"):
                pass
        if not _is_finished(cell.run):
            if folder.last_checkpoint(cell.run, folder.AUTO) is None:
                shutil.rmtree(cell.run, ignore_errors=True)
            began = time.perf_counter()
            try:
                self._call(command, cell.log, slot)
            finally:
                seconds += time.perf_counter() - began
                cell.write_record(status="missing", seconds=seconds)
        cell.write_record(status="done", seconds=seconds)

    def evaluate(self, names: list[str], output: Path, slot: int = 0) -> None:
        """Evaluate models on the test questions, unless `output` exists.

        Args:
            names: The models.
            output: File for the results.
            slot: Number of the parallel job, from 0 to `jobs` - 1. It selects the GPU.

        Raises:
            CellError: The evaluation failed.
        """
        if not output.is_file():
            evaluate = f"{__package__.rpartition('.')[0]}.evaluate"
            command = [sys.executable, "-m", evaluate, *names, str(self._plan.folder / TEST)]
            command += [*self._plan.evaluation, f"--reference={self._model}", f"--output={output}"]
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
                    start_new_session=True,  # so that `end` also reaches the child processes
                )
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        if status:
            raise CellError("interrupted" if self._ended else failure_reason(log, status))

    def _environment(self, slot: int) -> dict[str, str]:
        # so that evals can be imported from any directory
        paths = [str(import_root()), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        gpus = torch.cuda.device_count()
        if not gpus:
            env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._plan.jobs)))
        elif self._plan.jobs > 1 or self._plan.launcher == [sys.executable]:
            visible = env.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
            # without a launcher a run is one process, which can use one GPU
            share = 1 if self._plan.launcher == [sys.executable] else max(1, gpus // self._plan.jobs)
            first = slot * share % gpus
            env["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + share])
        return env

    def end(self) -> None:
        """End all running processes. SIGTERM lets them write their reports; SIGKILL ends those that do not stop.

        A second interrupt sends SIGKILL at once.
        """
        with self._lock:
            self._ended = True
            running = list(self._running)
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            for process in running:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(process.poll() is None for process in running):
                if number == signal.SIGTERM and self._interrupts > 1:
                    break
                time.sleep(0.1)


def _is_finished(run: Path) -> bool:
    """Whether the report of a run says that it finished."""
    report = run / "report.txt"
    lines = report.read_text().splitlines() if report.is_file() else []  # no line: the disk was full
    return any(": finished;" in line for line in lines[-1:])
