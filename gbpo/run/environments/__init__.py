"""Environments: the model acts in several turns, and the environment gives the reward."""
