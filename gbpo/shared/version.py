"""The version of gbpo."""

__version__ = "0.1.0"
