"""Options of the whole test suite."""

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine examples are slow, and slow is not wrong.
settings.register_profile("gate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-golden", action="store_true", help="rewrite tests/golden/ with what the code gives now")
