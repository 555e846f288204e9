"""The version of gbpo."""

__version__ = "1.0.0"
