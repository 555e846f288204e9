"""Checks what this machine can run: `python -m gbpo.doctor [RECIPE.yaml [--field value …]]`."""

from .run.preview.doctor import main

if __name__ == "__main__":
    main()
