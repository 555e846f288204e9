"""Rewards of the shape of a completion: its tags, length and repetition."""
