"""The token that goes with each request."""

import json
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import httpx
import trio

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.credentials import Access, TokenCommand
from pyjiva.maya.kube.credentials_sys import read_token

__all__ = ["TokenAuth"]

COMMAND_S: Final = 60.0  # a program that asks a cloud, perhaps a person
LEEWAY: Final = timedelta(seconds=10)


class TokenAuth(httpx.Auth):
    """Adds the token that counts now, and once more a fresh one if the server does not take it.

    Raises ConfigError where there is none.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._printed: _Printed | None = None
        self._turn = trio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """As httpx wants it."""
        token = await self._token("")
        if not token:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        fresh = await self._token(token)
        if fresh != token:
            request.headers["Authorization"] = f"Bearer {fresh}"
            yield request

    async def _token(self, refused: str) -> str:
        """`refused`: one that the server did not take."""
        if self._access.token_file:
            return read_token(self._access.token_file)
        command = self._access.token_command
        if command is None:
            return self._access.token
        async with self._turn:
            printed = self._printed
            if printed is None or printed.token == refused or printed.is_over():
                printed = self._printed = await _run(command)
        return printed.token


@attrs.frozen
class _Printed:
    token: str = attrs.field(repr=False)
    expires: datetime | None

    def is_over(self) -> bool:
        return self.expires is not None and datetime.now(UTC) >= self.expires - LEEWAY


async def _run(command: TokenCommand) -> _Printed:
    name = command.command[0]
    asked = {"apiVersion": command.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = {**os.environ, **command.environment, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        with trio.fail_after(COMMAND_S):
            done = await trio.run_process(
                command.command, env=environment, capture_stdout=True, capture_stderr=True, check=False
            )
    except OSError as error:
        raise ConfigError(f"{name} cannot be run for a token: {error}. {command.advice}".strip()) from error
    except trio.TooSlowError as error:
        raise ConfigError(f"{name} gave no token within {COMMAND_S:g} s") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigError(f"{name} gave no token: exit code {done.returncode}: {reason}")
    try:
        status = json.loads(done.stdout)["status"]
        expires = status.get("expirationTimestamp")
        return _Printed(status["token"], datetime.fromisoformat(expires) if expires else None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name} did not print an ExecCredential with a token") from error
