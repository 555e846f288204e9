"""Timed comparisons.

    python -m evals.bench train       forward and backward of one optimiser step, GBPOTrainer beside TRL's GRPOTrainer
    python -m evals.bench loss        the loss as a share of a step's forward and backward
    python -m evals.bench rewards     what the rewards grade in a second
    python -m evals.bench control     environment steps in a second, BPO beside Stable-Baselines3's PPO
    python -m evals.bench generate    tokens in a second by the ways to generate
    python -m evals.bench end2end     seconds until the demo's task is learnt, beside TRL's GRPOTrainer

Medians over `--repeats`, so run it on a machine that does nothing else. Definitions: evals/bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

BENCHES = ("train", "loss", "rewards", "control", "generate", "end2end")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of one bench, and write it where `--json` says."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)

    from gbpo.run.data import loading as data

    from . import measuring

    data.quiet()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # of rollout_func
    machine = measuring.machine(argv)  # before a bench changes the number of threads
    found = import_module(f".{options.what}", __package__).run(options)
    print(measuring.table(found.columns, found.rows))
    for note in found.notes:
        print(note)
    print(measuring.describe(machine))
    if options.json is not None:
        measuring.write(options.json, found.results, machine)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evals.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benches = parser.add_subparsers(dest="what", required=True)
    for name in BENCHES:
        bench = benches.add_parser(name)
        bench.add_argument("--repeats", type=int, default=3, help="measurements of each number (3)")
        bench.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
        bench.add_argument("--quick", action="store_true", help="a smoke of seconds, its numbers mean nothing")
        if name == "train":
            bench.add_argument("--growth", action="store_true", help="how the cost grows, in place of the cases")
            bench.add_argument(
                "--model", choices=["small", "qwen2.5-0.5b"], default="small", help="the second needs a GPU"
            )
    return parser


if __name__ == "__main__":
    main()
