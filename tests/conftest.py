"""Profiles of hypothesis, and the option that writes golden frames."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Arrays are drawn through the very encoders under test, so examples are slow and not rarely refused.
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
settings.register_profile("dev", max_examples=50, **_patient)
settings.register_profile("ci", max_examples=50, derandomize=True, database=None, **_patient)
settings.register_profile("nightly", max_examples=2000, print_blob=True, **_patient)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden frames that are missing, and only those")
