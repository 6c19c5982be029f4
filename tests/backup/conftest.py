"""The S3 server that several files of tests use."""

from collections.abc import Iterator

import pytest

from tests.backup.s3_server import S3Server, versitygw


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real server on a port of its own."""
    with S3Server.running(tmp_path_factory.mktemp("s3"), versitygw()) as server:
        yield server
