"""How commands talk to a controller's API."""

import functools
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click
import httpx

from pyjiva.cli.contexts import CONTEXT_VARIABLE, complete_context, read_contexts
from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.event_stream import HEARTBEAT_S
from pyjiva.transport.problem import PROBLEM_TYPE, detail_of
from pyjiva.transport.tls_sys import client_context
from pyjiva.transport.token_file_sys import read_token

__all__ = ["EXIT_UNREACHABLE", "TOKEN_VARIABLE", "Api", "ApiAddress", "api_option", "open_api_address"]

API_DEFAULT: Final = "http://127.0.0.1:9501"
TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 3 * HEARTBEAT_S  # of a stream of events
EXIT_UNREACHABLE: Final = 1
TOKEN_VARIABLE: Final = "PYJIVA_API_TOKEN_FILE"
#: What an API may ask for, and what proves it → help.
_FILES: Final = {
    "api_token_file": "The token that it asks for.",
    "tls_ca": "The authority (PEM) whose certificate it must have.",
    "tls_cert": "Our certificate (PEM), if it asks for one.",
    "tls_key": "The certificate's key (PEM).",
}
_NO_TOKEN: Final = f"it asks for a token: give --api-token-file FILE or {TOKEN_VARIABLE}"
_WRONG_TOKEN: Final = f"the token of --api-token-file or {TOKEN_VARIABLE} is not its own"


@attrs.frozen
class ApiAddress:
    """Whom to ask, and what to show."""

    url: str
    token: Token | None = None
    tls: ssl.SSLContext | None = None
    """None: as httpx does, with the authorities of the system."""


def api_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --api, --context and what proves who asks; the command gets `api`, an ApiAddress."""

    @functools.wraps(command)
    def with_address(*, api: str | None, context: str | None, **given: Any) -> Any:
        files = {key: given.pop(key) for key in _FILES}
        return command(api=find_api(api, context, files), **given)

    url = click.option(
        "--api",
        envvar="PYJIVA_API",
        show_envvar=True,
        help=f"The controller's API; without it and a context {API_DEFAULT}.",
    )
    context = click.option(
        "--context",
        envvar=CONTEXT_VARIABLE,
        show_envvar=True,
        shell_complete=complete_context,
        help="The volume of this name in the configuration file.",
    )
    with_options: Callable[..., Any] = with_address
    for key, text in reversed(_FILES.items()):
        option = click.option(
            f"--{key.replace('_', '-')}",
            type=click.Path(path_type=Path),
            envvar=f"PYJIVA_{key.upper()}",
            show_envvar=True,
            help=text,
        )
        with_options = option(with_options)
    return url(context(with_options))


def find_api(url: str | None, context: str | None, files: Mapping[str, Path | None]) -> ApiAddress:
    """Where `url` says, else the context, else the file's default, else on this machine.

    `files`: see `open_api_address`; what is None is the context's.  Raises UsageError: there is no such
    context, the file cannot be read, or one of those that it names cannot.
    """
    if url is None:
        try:
            chosen = read_contexts().choose(context)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        if chosen is not None:
            return open_api_address(chosen.api, {key: files[key] or getattr(chosen, key) for key in _FILES})
    return open_api_address(url or API_DEFAULT, files)


def open_api_address(url: str, files: Mapping[str, Path | None]) -> ApiAddress:
    """`files`: by the names of `_FILES`.  Raises UsageError: one cannot be read."""
    token_file = files.get("api_token_file")
    try:
        token = None if token_file is None else read_token(token_file)
        tls = client_context(files.get("tls_ca"), files.get("tls_cert"), files.get("tls_key"))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    scheme = "http" if tls is None else "https"
    return ApiAddress(url if "://" in url else f"{scheme}://{url}", token, tls)


class Api:
    """The API at one address; whatever goes wrong ends the process with one line and exit code 1."""

    def __init__(self, address: ApiAddress, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address.url
        self.timeout_s = timeout_s
        self.has_token = address.token is not None
        self._options: dict[str, Any] = {
            "headers": {} if address.token is None else address.token.headers(),
            "verify": True if address.tls is None else address.tls,
            # No proxy of the environment: it stands between here and the world, not before a controller.
            "trust_env": False,
        }

    def get(self, path: str, **parameters: str) -> Any:
        """The answer of a GET."""
        return self._ask("GET", path, parameters)

    def text(self, path: str) -> str:
        """The answer of a GET that is no JSON."""
        return self._request("GET", path, {}).text

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a GET's answer as they come, until the other side ends it, or says nothing for so long
        that it must be gone: heartbeats come more often.
        """
        with self._failures():
            timeout = httpx.Timeout(self.timeout_s, read=SILENCE_S)
            with httpx.stream("GET", self._url(path), timeout=timeout, **self._options) as answer:
                if answer.is_error:
                    answer.read()
                    self._refused(answer)
                yield from answer.iter_lines()

    def post(self, path: str, **parameters: str | list[str]) -> Any:
        """The answer of a POST."""
        return self._ask("POST", path, parameters)

    def delete(self, path: str) -> Any:
        """The answer of a DELETE."""
        return self._ask("DELETE", path, {})

    def _ask(self, method: str, path: str, parameters: Mapping[str, str | list[str]]) -> Any:
        try:
            return self._request(method, path, parameters).json()
        except (ValueError, KeyError, TypeError):
            self.not_understood()

    def _request(self, method: str, path: str, parameters: Mapping[str, str | list[str]]) -> httpx.Response:
        with self._failures():
            answer = httpx.request(
                method, self._url(path), params=parameters, timeout=self.timeout_s, **self._options
            )
            self._refused(answer)
        return answer

    def _url(self, path: str) -> str:
        return self.address.rstrip("/") + path

    def _refused(self, answer: httpx.Response) -> None:
        """End with what it says if it is a refusal."""
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self.give_up(_WRONG_TOKEN if self.has_token else _NO_TOKEN, what="the controller refused")
        if answer.headers.get("Content-Type") == PROBLEM_TYPE:
            self.give_up(detail_of(answer.json()), what="the controller refused")
        answer.raise_for_status()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.give_up(str(error) or type(error).__name__)
        except (ValueError, KeyError, TypeError):
            self.not_understood()

    def not_understood(self) -> NoReturn:
        """End: what answers is something else."""
        self.give_up("the answer is not a volume's status")

    def give_up(self, reason: str, what: str = "no volume answers") -> NoReturn:
        """End with one line."""
        print(f"pyjiva: {what} at {self.address}: {' '.join(reason.split())}", file=sys.stderr)
        sys.exit(EXIT_UNREACHABLE)
