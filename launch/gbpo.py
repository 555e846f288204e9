"""Run a recipe: `accelerate launch launch/gbpo.py recipes/qwen_math.yaml [--field value …]`, from any directory."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# this folder comes first on the path, where this very file would pass for the package gbpo; the working directory may
# hold the rewards of the user
sys.path = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE), str(Path.cwd())]

if __name__ == "__main__":  # not in the worker processes of the rewards, which import this file again
    from gbpo.run.train import main

    main()
