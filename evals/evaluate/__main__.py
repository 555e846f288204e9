from .command import main

if __name__ == "__main__":  # worker processes of the rewards import this file again
    main()
