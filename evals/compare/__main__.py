from .command import main

if __name__ == "__main__":  # the rewards' worker processes import this file again
    main()
