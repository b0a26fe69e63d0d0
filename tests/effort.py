# SPDX-License-Identifier: Apache-2.0
"""How much a run tries: by Hypothesis' profiles. CI (where $CI is set) tries all, a person's run a part, --quick little."""

from __future__ import annotations

from hypothesis import settings

PARTS = {"dev": 0.2, "quick": 0.05}  # of what CI tries


def load(*, quick: bool) -> None:
    """Load the profile of this run, unless this is CI, or Hypothesis' own option names one."""
    if settings.get_current_profile_name() != "default":
        return
    name = "quick" if quick else "dev"
    settings.register_profile(name, max_examples=int(100 * PARTS[name]), deadline=None)
    settings.load_profile(name)


def examples(count: int) -> int:
    """Return how many to try of something where CI tries so many."""
    return max(3, int(count * PARTS.get(settings.get_current_profile_name(), 1)))
