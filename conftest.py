"""Set before any numerical library is imported: one thread each, and the Hypothesis profile."""

import os

from oracles.environment import pin_threads

pin_threads()

from hypothesis import settings  # noqa: E402

settings.register_profile("ci", derandomize=True, database=None, print_blob=True, max_examples=60)
settings.register_profile("local", max_examples=60)
settings.register_profile("thorough", max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local"))
