# SPDX-License-Identifier: Apache-2.0
"""Tests of this directory run in each way of running a plugin."""

from ways import activated, binaries, pytest_generate_tests

__all__ = ["activated", "binaries", "pytest_generate_tests"]
