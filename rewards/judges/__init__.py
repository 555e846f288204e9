"""Rewards from a served model: a language model that judges completions, and a reward model."""
