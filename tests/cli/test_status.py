"""`pyjiva status` against an API that says whatever a test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from pyjiva.cli.status import command

STATUS: dict[str, Any] = {
    "name": "demo",
    "volume_id": "0" * 32,
    "size_bytes": 10 * 1024**3,
    "block_size_bytes": 512,
    "state": "degraded",
    "reason": "replica 2 is rebuilding: being rebuilt",
    "epoch": 4,
    "iqn": "iqn.2016-09.com.openebs.jiva:demo",
    "portals": ["127.0.0.1:3260"],
    "replicas": [
        {
            "id": n,
            "address": f"127.0.0.1:{9500 + n}",
            "directory": f"/a/rather/long/name/of/a/directory/that/matters/demo/replica-{n}",
            "mode": "rebuilding" if n == 2 else "in-sync",
            "progress": 0.42 if n == 2 else None,
            "reason": "being rebuilt" if n == 2 else "",
        }
        for n in (1, 2, 3)
    ],
    "sessions": [
        {
            "initiator": "iqn.1993-08.org.debian:01:abc",
            "address": "127.0.0.1:50000",
            "isid": "00023d000001",
            "tsih": 1,
            "connected_s": 12.0,
        }
    ],
}


class Api:
    """Answers every request with `body`."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps(STATUS).encode()
        self.code = 200
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(api.code)
                self.end_headers()
                self.wfile.write(api.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


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


@pytest.mark.parametrize(("state", "code"), [("healthy", 0), ("degraded", 3), ("parked", 4)])
def test_the_exit_code_tells_the_state(state: str, code: int, api: Api) -> None:
    api.body = json.dumps(STATUS | {"state": state}).encode()
    assert CliRunner().invoke(command, ["--api", api.url]).exit_code == code


def test_people_see_everything_that_matters_also_in_a_pipe(api: Api) -> None:
    output = CliRunner().invoke(command, ["--api", api.url]).output
    for part in (
        "demo",
        "10GiB",
        "degraded",
        "rebuilding 42 %",
        "being rebuilt",
        "iqn.1993-08.org.debian:01:abc",
    ):
        assert part in output
    for replica in STATUS["replicas"]:
        assert replica["directory"] in output


def test_programs_get_the_body(api: Api) -> None:
    output = CliRunner().invoke(command, ["--api", api.url, "--json"]).output
    assert json.loads(output) == STATUS


def test_the_environment_names_the_api(api: Api) -> None:
    result = CliRunner().invoke(command, ["--json"], env={"PYJIVA_API": api.url})
    assert json.loads(result.output)["name"] == "demo"


@pytest.mark.parametrize(
    ("code", "body"), [(500, b"{}"), (200, b"not json"), (200, b"[]"), (200, b'{"state": "odd"}'), (404, b"")]
)
def test_an_odd_answer_is_one_line_and_exit_code_1(code: int, body: bytes, api: Api) -> None:
    api.code, api.body = code, body
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")


def test_nobody_there_is_exit_code_1(api: Api) -> None:
    result = CliRunner().invoke(command, ["--api", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
