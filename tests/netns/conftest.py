"""Tests of this directory run in each way of running a plugin."""

from ways import binaries, pytest_generate_tests

__all__ = ["binaries", "pytest_generate_tests"]
