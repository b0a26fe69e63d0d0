# SPDX-License-Identifier: Apache-2.0
"""Commands for a person, each in a module, imported on demand."""
