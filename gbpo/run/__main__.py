if __name__ == "__main__":  # worker processes of the rewards import this file too
    from .train import main

    main()
