"""The watcher: a small process beside each rank. It outlives a killed rank, ends a hanging rank and writes the report.

`ending.watched` starts this file as a script. It imports the standard library only. The rank writes JSON lines to the
watcher's standard input: `{"step": N}` after each optimiser step and `{"ended": why}` at its end, where `why` is null
if the run finished. If the input ends without an `ended` line, the rank was killed. The rank exits when the watcher
has closed its standard output.

The watchers of a run share one folder. Each watcher rewrites its file `<rank>.beat` every few seconds, which shows that
it is alive. `<rank>.ended` says why a rank ended, and `reported` is created by the one watcher that writes the report.
Each watcher reads the beat of one other rank: the nearest lower rank that still runs, or for rank 0 the highest rank.
So exactly one watcher reads each beat, and the number of reads grows linearly with the number of ranks.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

POLL, BEAT = 0.5, 5.0
SETTLE = 3.0  # after one rank ended, wait this long for other ranks that may have ended earlier
GRACE = 10.0  # time between SIGTERM and SIGKILL for a rank that hangs because another rank ended
SILENT = 120.0  # if a rank's beat does not change for this long, its machine counts as lost
PATIENCE = 2 * (SETTLE + GRACE) + 4.0  # if rank 0 does not write the report within this time, another rank does

KILLED = "killed"
FOLDER, REPORT = ".ranks", "report.txt"


class Watcher:
    """The watcher of one rank.

    Args:
        output: Output folder of the run, for `report.txt`.
        folder: Folder that the watchers of this run share.
        rank: Rank to watch.
        ranks: Number of ranks.
        host: Name of the machine.
        pid: Process id of the rank.
        command: Command that continues the run, for the report.
    """

    def __init__(self, output: str, folder: str, rank: int, ranks: int, host: str, pid: int, command: str):
        self._output, self._folder = Path(output), Path(folder)
        self._rank, self._ranks, self._pid, self._command = rank, ranks, pid, command
        self._name = f"rank {rank} ({host}, process {pid})"
        self._step, self._buffer = 0, b""
        self._next_beat = 0.0
        self._watched_beat, self._changed = "", 0.0  # the beat of the rank that is watched, and when it last changed

    def run(self) -> None:
        """Watch until the rank has ended. Then write the report, unless another watcher writes it."""
        ended = None
        while ended is None:
            cause = self.look()
            if cause is not None:
                self._end_own_rank(cause)
            ended = self._read(POLL)
        why = ended["ended"]
        if why is None:
            if self._rank == 0 and self._claim_report():
                self._report("finished")
            self._leave()
        elif self._ranks == 1:
            self._report(why)
        else:
            self._write("ended", {"time": time.time(), "killed": why == KILLED, "why": f"{self._name}: {why}"})
            time.sleep(SETTLE)
            if self._rank != 0:
                os.dup2(2, 1)  # closes standard output, so the rank exits; others may wait for its connections to close
            if self._claim_report():
                self._report(self._first_end() or why)

    def look(self) -> str | None:
        """Write this rank's beat and check the other ranks.

        Returns:
            Why this rank would hang: another rank has ended, or the machine of another rank is lost. None if neither
            has happened.
        """
        if self._ranks == 1:
            return None
        if self._beat_if_due():
            self._mark_lost_rank()
        return self._first_end()

    def _read(self, timeout: float) -> dict | None:
        """The line that says how the rank ended, or None while the rank runs."""
        if not select.select([0], [], [], timeout)[0]:
            return None
        data = os.read(0, 65536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in map(json.loads, lines):
            self._step = line.get("step", self._step)
            if "ended" in line:
                return line
        return None if data else {"ended": KILLED}

    def _file(self, kind: str, rank: int) -> Path:
        return self._folder / f"{rank}.{kind}"

    def _write(self, kind: str, value: object, rank: int | None = None) -> None:
        path = self._file(kind, self._rank if rank is None else rank)
        unfinished = path.with_name(f"{path.name}.{self._rank}")
        with contextlib.suppress(OSError):  # the disk may be full
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(value))
            unfinished.replace(path)

    def _beat_if_due(self) -> bool:
        if time.monotonic() < self._next_beat:
            return False
        self._write("beat", {"time": time.time(), "name": self._name})
        self._next_beat = time.monotonic() + BEAT
        return True

    def _mark_lost_rank(self) -> None:
        """If the beat of the watched rank has not changed for too long, write its end on its behalf."""
        for distance in range(1, self._ranks):
            rank = (self._rank - distance) % self._ranks
            try:
                beat = self._file("beat", rank).read_text()
            except FileNotFoundError:  # not started, or finished: look at the next lower one
                continue
            now = time.monotonic()
            if beat != self._watched_beat:  # also true when the watched rank changes, because a beat names its rank
                self._watched_beat, self._changed = beat, now
            elif now - self._changed > SILENT:
                why = f"{json.loads(beat)['name']}: no sign of life for {SILENT:.0f} s, its machine may be down"
                self._write("ended", {"time": time.time() - SILENT, "killed": True, "why": why}, rank)
            return

    def _first_end(self) -> str | None:
        """Why the first rank ended. If several ranks ended within `SETTLE` seconds, a killed rank counts as the first.

        The other ranks may notice the broken connection before the watcher of the killed rank notices the end.
        """
        ends = sorted((json.loads(path.read_text()) for path in self._folder.glob("*.ended")), key=lambda e: e["time"])
        near = [end for end in ends if end["time"] < ends[0]["time"] + SETTLE]
        return next((end["why"] for end in sorted(near, key=lambda end: not end["killed"])), None)

    def _end_own_rank(self, why: str) -> None:
        for number, patience in ((None, SETTLE), (signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            if number is not None:
                try:
                    os.kill(self._pid, number)
                except ProcessLookupError:
                    return
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                self._beat_if_due()
                if select.select([0], [], [], POLL)[0]:  # the rank wrote something, or ended
                    return
            if number is None:
                print(f"gbpo: {self._name} ends because of {why}", file=sys.stderr, flush=True)

    def _claim_report(self) -> bool:
        """Whether this watcher writes the report: that of rank 0 or, if rank 0 is lost, the first other one."""
        if self._ranks == 1:
            return True
        claim = self._folder / "reported"
        deadline = time.monotonic() + PATIENCE
        while self._rank != 0 and time.monotonic() < deadline:
            if claim.exists():
                return False
            time.sleep(POLL)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))  # succeeds for one watcher only
        except FileExistsError:
            return False
        except OSError:  # the disk is full, or the next run has removed the folder: rank 0 reports, other ranks do not
            return self._rank == 0
        return True

    def _leave(self) -> None:
        """Remove this rank's beat. The last watcher of a finished run removes the folder."""
        self._file("beat", self._rank).unlink(missing_ok=True)
        if not any(self._folder.glob("*.beat")):
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._folder.parent.rmdir()

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
            new_line = "\n" if sys.stderr.isatty() else ""  # a run that was killed leaves its progress bar
            print(f"{new_line}gbpo: {line}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError), (self._output / REPORT).open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Watcher(**json.loads(sys.argv[1])).run()
