"""One guest for all tests of the session: building it takes seconds."""

import pytest

from tests.vm.guest import Guest, build_guest


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """Built once; every run boots it anew."""
    return build_guest(tmp_path_factory.mktemp("guest"))
