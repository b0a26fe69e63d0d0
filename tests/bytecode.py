# SPDX-License-Identifier: Apache-2.0
"""A place for compiled modules: the tests import this before all else.

Where the environment forbids to write them they go into the virtual environment, those of processes that tests start, too: else half of a
short run is compiling.
"""

import os
import sys

if sys.dont_write_bytecode and sys.prefix != sys.base_prefix:
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = f"{sys.prefix}/pycache"
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
