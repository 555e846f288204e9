"""Rewards that grade an answer."""
