"""Rewards that grade an answer: math, exact match, majority vote and reasoning-gym."""
