# SPDX-License-Identifier: Apache-2.0
"""Pod addresses for Kubernetes, taken from the Node object: CNI IPAM plugins. Imports nothing: a plugin starts for every pod."""
