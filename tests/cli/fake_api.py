"""An API that says whatever a test wants."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from pyjiva.transport.problem import PROBLEM_TYPE

__all__ = ["STATUS", "Api"]

REBUILD: Final = {
    "source": 3,
    "compared_bytes": 0,
    "copied_bytes": 4096,
    "remaining_bytes": 3 * 1024**3,
    "eta_s": 75.2,
}
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
            "rebuild": REBUILD if n == 2 else None,
            "rebuilds": {
                "begun": int(n == 2),
                "completed": 0,
                "copied_bytes": 4096 if n == 2 else 0,
                "compared_bytes": 0,
                "seconds": 9.5 if n == 2 else 0.0,
            },
            "rot": {"repairing": 0, "repaired": 3 if n == 3 else 0, "hopeless": 0},
            "used_bytes": None if n == 2 else 3 * 1024**2,
            "available_bytes": None if n == 2 else 7 * 1024**3,
            "reason": "being rebuilt" if n == 2 else "",
        }
        for n in (1, 2, 3)
    ],
    "scrub": None,
    "parked_requests": 0,
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
    """Answers with `body`, or with what `paths` has for the path; keeps what was asked.

    What is in `bodies` is answered first, each once; what is in `texts` when /metrics is asked for.
    """

    def __init__(self) -> None:
        self.body: bytes = json.dumps(STATUS).encode()
        self.bodies: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.code = 200
        self.paths: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(f"{self.command} {self.path}")
                api.authorizations.append(self.headers["Authorization"])
                path = self.path.partition("?")[0]
                if path == "/metrics" and api.texts:
                    code, answer = 200, api.texts.pop(0).encode()
                elif api.bodies:
                    code, answer = 200, json.dumps(api.bodies.pop(0)).encode()
                elif path in api.paths:
                    code, body = api.paths[path]
                    answer = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                else:
                    code, answer = api.code, api.body
                self.send_response(code)
                self.send_header("Content-Type", "application/json" if code < 400 else PROBLEM_TYPE)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_DELETE = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
