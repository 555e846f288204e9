"""Runs a recipe: `accelerate launch launch/gbpo.py recipes/qwen_math.yaml [--field value …]`, from any directory."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Python puts this folder first on the path, where this file would hide the package gbpo. The working directory can hold
# the user's own rewards.
sys.path = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE), str(Path.cwd())]

if __name__ == "__main__":  # worker processes of the rewards import this file too
    from gbpo.run.train import main

    main()
