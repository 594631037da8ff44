"""Shoal: a group of Linux hosts run as one Docker Engine."""

__version__ = "0.1.0"
