"""Rewards for the form of a completion: its tags, length and repetition."""
