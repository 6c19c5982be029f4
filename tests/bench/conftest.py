"""The load driver, built once."""

import pytest

from bench.driver_sys import Driver, build_driver, missing_packages


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Compiled from the present source."""
    if missing := missing_packages():
        pytest.skip(f"Debian package missing: {', '.join(missing)}")
    return build_driver(tmp_path_factory.mktemp("driver"))
