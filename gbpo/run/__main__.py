if __name__ == "__main__":  # not in the worker processes of the rewards, which import this file again
    from .train import main

    main()
