"""What all tests share: how properties are tried.

`same`: each run tries the same examples, so that code that has passed passes again. `anew`, of `make chaos`:
other ones each time. Neither has a stopwatch, since the machine may be busy with other tests.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "anew", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("same", settings.get_profile("anew"), derandomize=True)
settings.load_profile("same")
