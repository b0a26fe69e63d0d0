# SPDX-License-Identifier: Apache-2.0
"""The archive of a node for a bug report, without secrets: `Archive` lists its content, and everything left out."""
