r"""The box in which untrusted programs run. Linux only.

Canaries, which are harmless programs that try to escape, test the box before its first use.

The layers of the box, outermost first:

- an unprivileged user who cannot get new privileges (if started as root);
- bubblewrap: new namespaces, no network, a read-only `/usr` and interpreter, a small `/tmp` and no other files;
- a seccomp filter that denies sockets, tracing, new namespaces and io_uring;
- limits on memory, CPU time, file size and threads, and for each test a second filter that denies new processes;
- a wall-clock limit.

If namespaces are blocked, as in most containers, `sandlock` replaces bubblewrap. With `e2b`, the programs run on
virtual machines of the service e2b instead.

A layer counts as present if it stops its canaries. A missing layer raises an error, unless `allow_missing` names
the layer.

    python -m rewards.box        # print the layers, the result of each canary, and launches per second
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import importlib.util
import json
import marshal
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import backends, canaries
from .backends import BoxError, OutOfTimeError

BACKENDS = ("auto", "bubblewrap", "sandlock", "e2b")
_BACKENDS: dict[str, Callable[[backends.Request, float, int], backends.Lines]] = {
    "bubblewrap": backends.bubblewrap,
    "sandlock": backends.sandlock,
    "e2b": backends.e2b,
}
OUTPUT_MB = 4  # MiB of output per test
THREADS = 256  # threads per test
_CANARY_ATTEMPTS = 4  # runs of the canaries, a second apart, until one of them finishes


@dataclass(frozen=True)
class Outcome:
    """How one test ended.

    Attributes:
        end: `"ok"` (exit code 0), `"died"` (an exception, another exit code or a signal), `"timeout"` or `"overflow"`
            (too much output or too many files). `"said"`: the test talks and has not ended. `"started"`: the box of
            tests that talk has started.
        data: Standard output or, in a call test, the returned values as written by `wire.encode`. What a test that
            talks said. Otherwise empty.
    """

    end: str
    data: bytes


@dataclass(frozen=True)
class Box:
    """Runs untrusted Python programs. Canaries test a box once per process; equal boxes share the result.

    Args:
        backend: `"bubblewrap"`, `"sandlock"`, `"e2b"`, or `"auto"`: bubblewrap, or sandlock if bubblewrap fails.
        allow_missing: Layers (keys of `canaries.LAYERS`) whose absence raises no error.
        seconds: CPU seconds per test. The wall-clock limit is three times as long.
        total_seconds: Wall-clock seconds for all tests of one program.
        memory_mb: MiB of address space per test.

    Raises:
        ValueError: An option is out of range.
    """

    backend: str = "auto"
    allow_missing: tuple[str, ...] = ()
    seconds: float = 6.0
    total_seconds: float = 60.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(
                f"sandbox={self.backend!r} is not available, so no program can run. Write one of {', '.join(BACKENDS)}."
            )
        object.__setattr__(self, "allow_missing", tuple(self.allow_missing))
        unknown = set(self.allow_missing) - set(canaries.LAYERS)
        if unknown:
            raise ValueError(
                f"allow_missing={', '.join(sorted(unknown))} is not a layer, so it would have no effect. Write some of "
                f"{', '.join(canaries.LAYERS)}."
            )
        for name in ("seconds", "total_seconds", "memory_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} would let no program run; give a positive number.")

    def ready(self) -> Readiness:
        """Test the box with its canaries, once per process.

        Raises:
            BoxError: No box starts, or a layer is missing that `allow_missing` does not name.
        """
        return _ready(self)

    def run(
        self, program: str, tests: Sequence[dict[str, Any]], prelude: str = "", talk: str = ""
    ) -> Generator[Outcome, bytes | None, None]:
        """Run a program on each test, one after another, in one new box. Closing the iterator ends the box.

        Args:
            program: Python source.
            tests: `{"stdin": text}`, or `{"calls": [{"function", "args", "kwargs", "items"}]}` with args and kwargs as
                written by `wire.encode`, and the number of items that are read from a returned iterator, or None, or
                `{"talk": order}`.
            prelude: Python source whose names the program may use without defining them. It is run once per box and
                must be trusted.
            talk: Trusted source that runs the program in a test that talks. It finds the names `program`, `module` and
                `order`. It writes lines to descriptor 3 and reads the answer to each line from descriptor 4.

        Yields:
            One outcome per test, in order. In a test that talks also one for each line that it says, whose answer must
            be sent to this generator. If tests talk, first `started` when the box starts, so that two boxes can start
            at the same time.

        Raises:
            BoxError: The box did not start, or the prelude failed.
        """
        output_bytes = OUTPUT_MB * 2**20
        request = {
            "program": program,
            "prelude": prelude,
            "tests": list(tests),
            "talk": _compiled(talk),
            "cpu_seconds": self.seconds,
            "wall_seconds": 3 * self.seconds,
            "output_bytes": output_bytes,
            "limits": {
                "RLIMIT_AS": self.memory_mb * 2**20,
                "RLIMIT_CPU": math.ceil(self.seconds),
                "RLIMIT_FSIZE": 16 * 2**20,
                "RLIMIT_NOFILE": 64,
                "RLIMIT_NPROC": THREADS,
                "RLIMIT_STACK": 64 * 2**20,
                "RLIMIT_CORE": 0,
            },
        }
        backend = self.ready().backend if self.backend == "auto" else self.backend
        lines = _BACKENDS[backend](request, self.total_seconds, 2 * output_bytes + 1024)
        finished, end, answer = 0, "died", None
        with contextlib.closing(lines):
            next(lines)
            if talk:
                yield Outcome("started", b"")
            try:
                while finished < len(tests):
                    outcome = _outcome(lines.send(answer))
                    answer = yield outcome
                    finished += outcome.end != "said"
            except StopIteration:  # the box has ended
                pass
            except OutOfTimeError:
                end = "timeout"
            except (ValueError, TypeError, KeyError, RecursionError):  # the program wrote this line, not the runner
                pass
        for _ in range(finished, len(tests)):
            yield Outcome(end, b"")


@dataclass(frozen=True)
class Readiness:
    """The backend in use, the results of the canaries, and the missing layers, all of which `allow_missing` names."""

    backend: str
    canary_results: tuple[canaries.CanaryResult, ...]
    missing: tuple[str, ...]


@functools.cache
def _compiled(talk: str) -> str:
    """The code of a source in base64. The box has the same interpreter, and compiling takes longer than a test."""
    return base64.b64encode(marshal.dumps(compile(talk, "talk.py", "exec", dont_inherit=True))).decode() if talk else ""


def _outcome(line: bytes) -> Outcome:
    answer = json.loads(line)
    if not isinstance(answer, dict) or answer.get("end") not in ("ok", "died", "timeout", "overflow", "said"):
        raise ValueError("not an outcome")
    return Outcome(answer["end"], base64.b64decode(answer["data"]))


@functools.cache
def _ready(box: Box) -> Readiness:
    if box.backend != "auto":
        return _tested(box)
    try:
        return _tested(replace(box, backend="bubblewrap"))
    except BoxError as first:
        if importlib.util.find_spec("sandlock") is None:
            raise BoxError(f"{first}. If namespaces are blocked, as in most containers: pip install sandlock") from None
        try:
            return _tested(replace(box, backend="sandlock"))
        except BoxError as second:
            raise BoxError(f"bubblewrap: {first}; sandlock: {second}") from None


def _tested(box: Box) -> Readiness:
    """Run the canaries. Raises BoxError if a layer is missing that `allow_missing` does not name."""

    def run(program: str) -> str:
        # Other boxes of the same user may briefly use up all threads, which kills the canaries.
        for attempt in range(_CANARY_ATTEMPTS):
            time.sleep(min(attempt, 1))
            (outcome,) = box.run(program, [{"stdin": ""}])
            if outcome.end == "ok":
                break
        else:
            raise BoxError(f"{box.backend}: its test programs did not finish ({outcome.end})")
        return outcome.data.decode()

    # The canaries try to reach this machine, but e2b runs programs elsewhere. So run only an empty program.
    if box.backend == "e2b":
        run("")
        return Readiness(box.backend, (), ())
    try:
        results = canaries.run_canaries(run, box.memory_mb)
    except ValueError as error:
        raise BoxError(f"{box.backend}: {error}") from None
    missing = [layer for layer in canaries.LAYERS if any(r.layer == layer and r.escaped for r in results)]
    refused = [layer for layer in missing if layer not in box.allow_missing]
    if refused:
        proofs = {layer: next(r for r in results if r.layer == layer and r.escaped) for layer in refused}
        reasons = "; ".join(
            f"{layer} ({p.tried}: {p.seen}), which needs {canaries.LAYERS[layer]}" for layer, p in proofs.items()
        )
        raise BoxError(
            f"{box.backend} does not stop {reasons}. Install what is missing, or list the layer in allow_missing to "
            "run untrusted programs without it."
        )
    return Readiness(box.backend, tuple(results), tuple(missing))


def main() -> None:
    """Print the layers of the sandbox, the result of each canary, and launches per second."""
    parser = argparse.ArgumentParser(prog="python -m rewards.box", description=main.__doc__)
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto", help="backend of the sandbox (default: auto)")
    parser.add_argument("--allow_missing", nargs="*", default=(), metavar="LAYER", help="layers that may be missing")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds for each measurement (default: 3)")
    options = parser.parse_args()
    box = Box(options.sandbox, tuple(options.allow_missing))
    try:
        readiness = box.ready()
    except BoxError as error:
        raise SystemExit(f"rewards.box: error: {error}") from None
    print(f"backend: {readiness.backend}")
    for result in readiness.canary_results:
        verdict = "ESCAPED" if result.escaped else "stopped"
        print(f"{verdict}  {result.layer:15} {result.tried:22} {result.seen}")
    for name, tests in (("one test", 1), ("ten tests", 10)):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            outcomes = list(box.run("print(input())", [{"stdin": "1"}] * tests))
            if [outcome.end for outcome in outcomes] != ["ok"] * tests:
                raise SystemExit(f"rewards.box: error: a program that echoes its input ended with {outcomes}.")
            done += 1
        print(f"{done / (time.perf_counter() - start):.1f} launches per second, {name} each, one after another")
