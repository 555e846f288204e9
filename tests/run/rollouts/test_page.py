"""The page with the completions: its texts, its filters, its safety and its looks in a browser."""

import json

import pytest

from conftest import HOSTILE  # noqa: F401
