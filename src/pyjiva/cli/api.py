"""How commands talk to a controller's API."""

import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import click
import httpx

__all__ = ["EXIT_UNREACHABLE", "Api", "api_option"]

TIMEOUT_S: Final = 5.0
EXIT_UNREACHABLE: Final = 1


api_option: Final = click.option(
    "--api",
    default="http://127.0.0.1:9501",
    show_default=True,
    envvar="PYJIVA_API",
    show_envvar=True,
    help="The controller's API.",
)


class Api:
    """The API at one address; whatever goes wrong ends the process with one line and exit code 1."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address if "://" in address else f"http://{address}"
        self.timeout_s = timeout_s

    def get(self, path: str, **parameters: str) -> Any:
        """The answer of a GET."""
        return self._ask("GET", path, parameters)

    def post(self, path: str, **parameters: str | list[str]) -> Any:
        """The answer of a POST."""
        return self._ask("POST", path, parameters)

    def delete(self, path: str) -> Any:
        """The answer of a DELETE."""
        return self._ask("DELETE", path, {})

    def _ask(self, method: str, path: str, parameters: Mapping[str, str | list[str]]) -> Any:
        url = self.address.rstrip("/") + path
        try:
            # No proxy of the environment: it stands between here and the world, not before a controller.
            answer = httpx.request(method, url, params=parameters, timeout=self.timeout_s, trust_env=False)
            if answer.status_code in (400, 404, 409, 503):
                self.give_up(str(answer.json()["error"]), what="the controller refused")
            answer.raise_for_status()
            return answer.json()
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
