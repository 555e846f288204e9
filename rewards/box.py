"""The command `python -m rewards.box`: tests the sandbox on this machine and prints the results."""

from .programs.sandbox.box import main

if __name__ == "__main__":
    main()
