# SPDX-License-Identifier: Apache-2.0
"""PURE. The protocol of the Container Network Interface: environment, configuration, results, versions, errors. No address management."""
