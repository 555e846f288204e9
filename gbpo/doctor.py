"""Checks what this machine can run: `python -m gbpo.doctor` is `gbpo doctor`."""

from .run.preview.doctor import main

if __name__ == "__main__":
    main()
