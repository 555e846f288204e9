"""What the canaries of the sandbox saw on this machine: `python -m rewards.box`."""

from .programs.sandbox.box import main

if __name__ == "__main__":
    main()
