"""A served API is what its OpenAPI document says, no less and no more: schemathesis draws requests from that,
valid ones and others, sends them to the real server, and judges the answers by all its checks.

Deterministic: the same requests in each run.  The answers may still depend on what a volume does meanwhile.

`PYJIVA_OPENAPI_EXAMPLES` how many requests are drawn for an operation, besides those that its schemas name;
`PYJIVA_OPENAPI_SEED` draws others.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from starlette.applications import Starlette

from pyjiva.transport.bearer import OPEN_PATHS, Token
from pyjiva.transport.http_io import serve_http

__all__ = ["Tested", "check_by_document"]

TOKEN: Final = "0123456789abcdef"
EXAMPLES: Final = os.environ.get("PYJIVA_OPENAPI_EXAMPLES", "3")
SEED: Final = os.environ.get("PYJIVA_OPENAPI_SEED", "")
DRAWN: Final = ("--seed", SEED, "--generation-database", "none") if SEED else ("--generation-deterministic",)
TIME_S: Final = 300
#: Beside 2xx, a request that the document allows may be answered: there is no such thing (404), it cannot be
#: as things are (409), its Idempotency-Key was used for another one (422).  Never: that it makes no sense.
#: What the document forbids is refused, and not taken for something else.  5xx is nowhere right.
CONFIGURATION: Final = """
[cache]
enabled = false
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 422]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 409, 422]
"""


@attrs.frozen
class Tested:
    """What there was to judge."""

    operations: int
    cases: int
    phases: frozenset[str]
    """Of examples, coverage, fuzzing and stateful those that had something to do."""
    found: str
    """Empty, or what is wrong, for people."""


async def check_by_document(
    app: Starlette,
    document: Mapping[str, Any],
    folder: Path,
    *,
    endless: Collection[str] = (),
    exceptions: str = "",
    open_paths: frozenset[str] = OPEN_PATHS,
) -> Tested:
    """Serve `app` with a token on loopback, and have it tested.  `endless`: paths whose answers never
    end.  `exceptions`: for single operations, as schemathesis' configuration has them.
    """
    async with trio.open_nursery() as nursery:
        serve = partial(serve_http, token=Token.parse(TOKEN), open_paths=open_paths)
        port = await nursery.start(partial(serve, app, "127.0.0.1", 0))
        tested = await _run(f"http://127.0.0.1:{port}", document, folder, endless, CONFIGURATION + exceptions)
        nursery.cancel_scope.cancel()
    return tested


async def _run(
    url: str, document: Mapping[str, Any], folder: Path, endless: Collection[str], configuration: str
) -> Tested:
    # As it is served it says that a token may be needed, as that depends; of this one it is known.
    (token,) = (each for each in document["security"] if each)
    (folder / "openapi.json").write_text(json.dumps({**document, "security": [token]}))
    (folder / "schemathesis.toml").write_text(configuration)
    report = folder / "report.json"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
        *("run", "openapi.json", "--url", url, "--header", f"Authorization: Bearer {TOKEN}"),
        *("--max-examples", EXAMPLES, "--request-timeout", "30", "--continue-on-failure", "--no-color"),
        *DRAWN,
        *("--warnings", "off", "--report", "json", "--report-json-path", str(report)),
        *(part for path in endless for part in ("--exclude-path", path)),
    ]
    with trio.fail_after(TIME_S):
        done = await trio.run_process(
            command,
            cwd=folder,
            stdin=b"",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = done.stdout.decode()
    assert report.exists(), said
    result = json.loads(report.read_text())
    went = frozenset(name for name, phase in result["phases"].items() if phase["status"] != "skip")
    assert result["complete"] and went >= {"coverage", "fuzzing"}, said
    assert result["operations"]["tested"] == result["operations"]["selected"], said
    return Tested(
        result["operations"]["tested"],
        result["test_cases"]["generated"],
        went,
        said if done.returncode else "",
    )
