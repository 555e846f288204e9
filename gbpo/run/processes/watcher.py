"""A small process beside each rank: it outlives a rank that is killed, tells the others, and writes how the run ended.

Started by `ending.Watched`, as a script of the standard library alone. It reads JSON lines from the rank: `{"step": N}`
after each optimiser step and `{"ended": why}` at the end, where `why` is null for a run that finished. An end of the
pipe without the latter means that the rank was killed. Ranks see each other through small files in the run's folder.
"""

import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path

POLL, BEAT = 0.5, 5.0
SETTLE = 3.0  # in which the cause, the end of another rank, arrives
GRACE = 10.0  # from SIGTERM to SIGKILL for a rank that waits for a dead one
SILENT = 120.0  # a rank without a beat for so long is lost with its node

KILLED = "killed"
FOLDER, REPORT = ".ranks", "report.txt"


class Watcher:
    def __init__(self, output: str, rank: int, ranks: int, host: str, pid: int, command: str):
        self._output, self._folder = Path(output), Path(output) / FOLDER
        self._rank, self._ranks, self._pid, self._command = rank, ranks, pid, command
        self._name = f"rank {rank} ({host}, process {pid})"
        self._step, self._buffer = 0, b""
        self._beats: dict[int, tuple[str, float]] = {}  # of each other rank, and when it changed
        self._next_beat = 0.0

    def run(self) -> None:
        ended = None
        while ended is None:
            if self._ranks > 1:
                self._beat()
                lost = self._lost_rank()
                if lost is not None:
                    self._end_own_rank(lost)
            ended = self._read(POLL)
        why = ended["ended"]
        if self._ranks > 1:
            why = self._common_cause(why)
        if self._rank == min(set(range(self._ranks)) - self._silent()):
            self._report(why or "finished")

    def _common_cause(self, why: str | None) -> str | None:
        """Why the first of all ranks ended."""
        if why is None:
            self._file("beat").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # until the last has left
                self._folder.rmdir()
            return None
        self._write("ended", {"time": time.time(), "killed": why == KILLED, "why": f"{self._name}: {why}"})
        time.sleep(SETTLE)
        return self._first_end() or why

    def _read(self, timeout: float) -> dict | None:
        """How the rank ended, or None while it runs."""
        if not select.select([0], [], [], timeout)[0]:
            return None
        data = os.read(0, 65536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in map(json.loads, lines):
            self._step = line.get("step", self._step)
            if "ended" in line:
                return line
        return None if data else {"ended": KILLED}

    def _file(self, kind: str, rank: int | None = None) -> Path:
        return self._folder / f"{self._rank if rank is None else rank}.{kind}"

    def _write(self, kind: str, value: object, rank: int | None = None) -> None:
        unfinished = self._file(f"{kind}.{self._rank}", rank)
        with contextlib.suppress(OSError):  # the disk may be full
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(value))
            unfinished.replace(self._file(kind, rank))

    def _beat(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._write("beat", {"time": time.time(), "name": self._name})
            self._next_beat = time.monotonic() + BEAT

    def _first_end(self) -> str | None:
        """Why the first rank ended; of several at about one time the killed one, which broke the connections."""
        ends = sorted((json.loads(path.read_text()) for path in self._folder.glob("*.ended")), key=lambda e: e["time"])
        near = [end for end in ends if end["time"] < ends[0]["time"] + SETTLE]
        return next((end["why"] for end in sorted(near, key=lambda end: not end["killed"])), None)

    def _silent(self) -> set[int]:
        now = time.monotonic()
        for rank in set(range(self._ranks)) - {self._rank}:
            try:
                beat = self._file("beat", rank).read_text()
            except FileNotFoundError:  # not begun, or finished
                self._beats.pop(rank, None)
                continue
            if self._beats.get(rank, ("", 0.0))[0] != beat:
                self._beats[rank] = beat, now
        return {rank for rank, (_, changed) in self._beats.items() if now - changed > SILENT}

    def _lost_rank(self) -> str | None:
        """Why this rank would wait for ever: another has failed, or its node no longer answers."""
        if why := self._first_end():
            return why
        for rank in sorted(self._silent()):
            name = json.loads(self._beats[rank][0])["name"]
            why = f"{name}: no sign of life for {SILENT:.0f} s, its machine may be down"
            self._write("ended", {"time": time.time() - SILENT, "killed": True, "why": why}, rank)
            return why
        return None

    def _end_own_rank(self, why: str) -> None:
        for number, patience in ((None, SETTLE), (signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            if number is not None:
                try:
                    os.kill(self._pid, number)
                except ProcessLookupError:
                    return
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                self._beat()
                if select.select([0], [], [], POLL)[0]:  # it has something to say, or is gone
                    return
            if number is None:
                print(f"gbpo: {self._name} ends because of {why}", file=sys.stderr, flush=True)

    def _report(self, why: str) -> None:
        numbers = [
            int(match[1])
            for path in self._output.iterdir()
            if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
        ]
        last = str(self._output / f"checkpoint-{max(numbers)}") if numbers else "none"
        line = f"ended at step {self._step}: {why}; last checkpoint: {last}"
        if why != "finished":
            line += f"; go on with: {self._command}"
            print(f"gbpo: {line}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError), (self._output / REPORT).open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Watcher(**json.loads(sys.argv[1])).run()
