"""Benchmarks.

All numbers are medians over `--repeats`. Run the benchmarks on an otherwise idle machine. evals/bench/README.md defines
what they measure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gbpo.shared.command_line import OneLineErrorParser, OneScreenHelp, check_file

BENCHES = {
    "train": "forward and backward pass of an optimiser step, GBPOTrainer and TRL's GRPOTrainer",
    "loss": "time of the loss, as a fraction of a step's forward and backward pass",
    "rewards": "completions graded per second",
    "control": "environment steps per second, BPO and Stable-Baselines3's PPO",
    "generate": "tokens generated per second, with transformers and vLLM",
    "ahead": "seconds per generation with a server that samples while the trainer trains",
    "end2end": "seconds until the demo task is solved, GBPOTrainer and TRL's GRPOTrainer",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one benchmark, print its table and write its JSON file."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats} would measure nothing. Write 1 or more.")
    try:
        check_file("--json", options.json)
    except ValueError as error:
        parser.error(error)

    from gbpo.run.data import loading as data

    from . import measuring

    data.quiet()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is experimental
    machine = measuring.machine(argv)  # before a benchmark changes the number of threads
    result = import_module(f".{options.benchmark}", __package__).run(options)
    print(measuring.table(result.columns, result.rows))
    for note in result.notes:
        print(note)
    print(measuring.describe(machine))
    if options.json is not None:
        measuring.write(options.json, result.results, machine)


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    parser = OneLineErrorParser(
        prog="gbpo bench",
        description=__doc__,
        formatter_class=OneScreenHelp,
        without=f"Without it there is nothing to measure. Write one of {', '.join(BENCHES)}: gbpo bench train.",
    )
    benches = parser.add_subparsers(dest="benchmark", required=True)
    for name, meaning in BENCHES.items():
        bench = benches.add_parser(name, help=meaning)
        bench.add_argument("--repeats", type=int, default=3, help="number of measurements (3)")
        bench.add_argument("--json", type=Path, metavar="FILE", help="file to write the results to")
        bench.add_argument(
            "--quick", action="store_true", help="test run of a few seconds; its numbers are meaningless"
        )
        if name == "train":
            bench.add_argument("--growth", action="store_true", help="measure how the cost grows with the batch")
            bench.add_argument(
                "--model",
                choices=["small", "qwen2.5-0.5b"],
                default="small",
                help="size of the model; qwen2.5-0.5b needs a GPU",
            )
    return parser


if __name__ == "__main__":
    main()
