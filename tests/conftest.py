"""What all tests share."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: how long an example takes says nothing here.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
