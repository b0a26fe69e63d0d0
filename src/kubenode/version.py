# SPDX-License-Identifier: Apache-2.0
"""The version of this copy; `./build.sh binaries --version=V` writes V into the copy it makes."""

VERSION = "0.1.0.dev0"
