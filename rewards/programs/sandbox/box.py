r"""The box in which untrusted programs run, and its proof: canaries that try to get out.

Layers, outermost first: an unprivileged user without a way to new privileges (when started as root); bubblewrap, which
gives new namespaces, no network, a read-only `/usr` and interpreter, a small `/tmp` and nothing else; a seccomp filter
without sockets, tracing, new namespaces and io_uring; limits of memory, processor time, file size and threads, and for
each test a second filter without new processes; a wall clock. Where namespaces are blocked, as in most containers,
`sandlock` stands in for bubblewrap; `e2b` sends the programs to that service instead.

A layer counts when its canary was stopped. A missing one raises, unless the caller allows it by name. Linux only.

    python -m rewards.box        # the layers, what each canary saw, launches per second
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import importlib.util
import itertools
import json
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
_FLIGHTS = 4  # of canaries that did not come to their end, a second apart


@dataclass(frozen=True)
class Outcome:
    """How one test ended.

    `end` is `"ok"` (it ran to its end, with exit code 0), `"died"` (exception, exit code or signal), `"timeout"` or
    `"overflow"` (more output than the cap). `data` is what it wrote: standard output, or in a call test the returned
    values as `plain.encode` writes them; empty unless `end` is `"ok"`.
    """

    end: str
    data: bytes


@dataclass(frozen=True)
class Box:
    """Runs untrusted Python programs; equal boxes are checked once in a process.

    Args:
        backend: `"bubblewrap"`, `"sandlock"`, `"e2b"`, or `"auto"`: bubblewrap, or sandlock where namespaces are
            blocked.
        allow_missing: Names of layers (keys of `canaries.LAYERS`) without which programs may run all the same.
        seconds: Processor seconds of one test; its wall clock is three times as long.
        total_seconds: Wall-clock seconds of all tests of one program.
        memory_mb: MiB of address space of one test.
        output_mb: MiB that one test may write.
        threads: Threads that one test may have.

    Raises:
        ValueError: An option has no meaning.
    """

    backend: str = "auto"
    allow_missing: tuple[str, ...] = ()
    seconds: float = 6.0
    total_seconds: float = 60.0
    memory_mb: int = 1024
    output_mb: int = 4
    threads: int = 256

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"sandbox={self.backend!r} is none of {', '.join(BACKENDS)}.")
        object.__setattr__(self, "allow_missing", tuple(self.allow_missing))
        unknown = set(self.allow_missing) - set(canaries.LAYERS)
        if unknown:
            raise ValueError(
                f"allow_missing names {', '.join(sorted(unknown))}, which is no layer. Write some of "
                f"{', '.join(canaries.LAYERS)}."
            )
        for name in ("seconds", "total_seconds", "memory_mb", "output_mb", "threads"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} lets no program run; give a positive number.")

    def ready(self) -> Readiness:
        """Check the box by its canaries, once in a process.

        Raises:
            BoxError: No box comes up, or a layer is missing that `allow_missing` does not name.
        """
        return _ready(self)

    def run(self, program: str, tests: Sequence[dict[str, Any]]) -> Generator[Outcome, None, None]:
        """Run a program on each test in turn, in one new box; closing the iterator ends it.

        Args:
            program: Python source.
            tests: `{"stdin": text}`, or `{"calls": [{"function", "args", "kwargs"}]}` with args and kwargs as
                `plain.encode` writes them.

        Yields:
            One outcome per test, in order.

        Raises:
            BoxError: The box did not come up.
        """
        output_bytes = self.output_mb * 2**20
        request = {
            "program": program,
            "tests": list(tests),
            "cpu_seconds": self.seconds,
            "wall_seconds": 3 * self.seconds,
            "output_bytes": output_bytes,
            "limits": {
                "RLIMIT_AS": self.memory_mb * 2**20,
                "RLIMIT_CPU": math.ceil(self.seconds),
                "RLIMIT_FSIZE": 16 * 2**20,
                "RLIMIT_NOFILE": 64,
                "RLIMIT_NPROC": self.threads,
                "RLIMIT_STACK": 64 * 2**20,
                "RLIMIT_CORE": 0,
            },
        }
        backend = self.ready().backend if self.backend == "auto" else self.backend
        lines = _BACKENDS[backend](request, self.total_seconds, 2 * output_bytes + 1024)
        given, end = 0, "died"
        with contextlib.closing(lines):
            try:
                for outcome in map(_outcome, itertools.islice(lines, len(tests))):
                    yield outcome
                    given += 1
            except OutOfTimeError:
                end = "timeout"
            except (ValueError, TypeError, KeyError, RecursionError):  # no line of the runner's
                pass
        for _ in range(given, len(tests)):
            yield Outcome(end, b"")


@dataclass(frozen=True)
class Readiness:
    """The backend that runs, what its canaries saw, and the layers that are missing though allowed to be."""

    backend: str
    sightings: tuple[canaries.Sighting, ...]
    missing: tuple[str, ...]


def _outcome(line: bytes) -> Outcome:
    answer = json.loads(line)
    if not isinstance(answer, dict) or answer.get("end") not in ("ok", "died", "timeout", "overflow"):
        raise ValueError("no outcome")
    return Outcome(answer["end"], base64.b64decode(answer["data"]))


@functools.cache
def _ready(box: Box) -> Readiness:
    if box.backend != "auto":
        return _examined(box)
    try:
        return _examined(replace(box, backend="bubblewrap"))
    except BoxError as first:
        if importlib.util.find_spec("sandlock") is None:
            raise BoxError(
                f"{first}. Where namespaces are blocked, as in most containers: pip install sandlock"
            ) from None
        try:
            return _examined(replace(box, backend="sandlock"))
        except BoxError as second:
            raise BoxError(f"bubblewrap: {first}; sandlock: {second}") from None


def _examined(box: Box) -> Readiness:
    """Fly the canaries, and compare what was stopped with what must be."""

    def run(program: str) -> str:
        # boxes of the same user elsewhere may for a moment leave no thread, which would kill what is no danger
        for flight in range(_FLIGHTS):
            time.sleep(min(flight, 1))
            (outcome,) = box.run(program, [{"stdin": ""}])
            if outcome.end == "ok":
                break
        else:
            raise BoxError(f"{box.backend}: the canaries {outcome.end}")
        return outcome.data.decode()

    if box.backend == "e2b":  # what it should keep from this machine is not on this machine
        run("")
        return Readiness(box.backend, (), ())
    try:
        sightings = canaries.fly(run, box.memory_mb)
    except ValueError as error:
        raise BoxError(f"{box.backend}: {error}") from None
    missing = [layer for layer in canaries.LAYERS if any(s.layer == layer and s.escaped for s in sightings)]
    refused = [layer for layer in missing if layer not in box.allow_missing]
    if refused:
        proofs = {layer: next(s for s in sightings if s.layer == layer and s.escaped) for layer in refused}
        reasons = "; ".join(
            f"{layer} ({p.tried}: {p.seen}), which needs {canaries.LAYERS[layer]}" for layer, p in proofs.items()
        )
        raise BoxError(
            f"{box.backend} does not stop {reasons}. Mend that, or list the layer in allow_missing and run untrusted "
            "programs without it."
        )
    return Readiness(box.backend, tuple(sightings), tuple(missing))


def main() -> None:
    """Print the layers, what each canary saw, and launches per second."""
    parser = argparse.ArgumentParser(prog="python -m rewards.box", description=main.__doc__)
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto")
    parser.add_argument("--allow_missing", nargs="*", default=(), metavar="LAYER")
    parser.add_argument("--seconds", type=float, default=3.0, help="for how long to launch boxes")
    options = parser.parse_args()
    box = Box(options.sandbox, tuple(options.allow_missing))
    try:
        readiness = box.ready()
    except BoxError as error:
        raise SystemExit(f"rewards.box: error: {error}") from None
    print(f"backend: {readiness.backend}")
    for sighting in readiness.sightings:
        verdict = "ESCAPED" if sighting.escaped else "stopped"
        print(f"{verdict}  {sighting.layer:15} {sighting.tried:22} {sighting.seen}")
    for name, tests in (("one test", 1), ("ten tests", 10)):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            outcomes = list(box.run("print(input())", [{"stdin": "1"}] * tests))
            if [outcome.end for outcome in outcomes] != ["ok"] * tests:
                raise SystemExit(f"rewards.box: error: a program that echoes its input ended with {outcomes}.")
            done += 1
        print(f"{done / (time.perf_counter() - start):.1f} launches per second, {name} each, one after another")
