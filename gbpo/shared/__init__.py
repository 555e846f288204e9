"""Helpers used by several packages of gbpo."""
