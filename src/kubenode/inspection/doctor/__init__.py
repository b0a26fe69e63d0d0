# SPDX-License-Identifier: Apache-2.0
"""Checks of a node: a module for each area, a function for each check. `registry` lists all, in their order."""
