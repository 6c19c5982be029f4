"""A stand-in for a controller's API."""

import threading
from collections.abc import Iterator

import pytest

from tests.cli.fake_api import Api


@pytest.fixture
def api() -> Iterator[Api]:
    """A server on a port of its own."""
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever)
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()
