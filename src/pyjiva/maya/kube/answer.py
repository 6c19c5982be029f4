"""What the API server's answers mean (`metav1.Status`, lines of a watch).  Pure."""

import json
from typing import Any, Final

from pyjiva.maya.kube.cluster import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    Object,
    WatchEvent,
    WatchKind,
)

__all__ = ["error_of", "is_of_object", "read_event", "read_object"]

MESSAGE_MAX: Final = 1000  # an operator reads it in a log; a proxy's page of HTML is cut

_BY_STATUS: Final[dict[int, type[KubeError]]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone}


def read_object(what: str, body: bytes) -> Object:
    """The JSON of an answer.  Raises KubeError: it is no object."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise KubeError(f"{what}: an answer that is no JSON: {_shown(body)}") from error
    if not isinstance(value, dict):
        raise KubeError(f"{what}: an answer that is no object: {_shown(body)}")
    return value


def error_of(what: str, code: int, body: bytes) -> KubeError:
    """What a refusal means."""
    try:
        status: Any = json.loads(body)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        status = {"message": _shown(body)}
    return _error(what, code, status)


def _error(what: str, code: int, status: Object) -> KubeError:
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or "no reason given")[:MESSAGE_MAX]
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(code, KubeError)
    return kind(f"{what}: {message}", status=code, reason=reason)


def is_of_object(body: bytes) -> bool:
    """Whether "not found" is said of one object, not of the kind."""
    try:
        return bool((json.loads(body).get("details") or {}).get("name"))
    except (ValueError, AttributeError):
        return False


def read_event(what: str, line: str) -> WatchEvent:
    """One line of a watch.  Raises Gone, KubeError: it is the server's last word."""
    event = read_object(what, line.encode())
    try:
        kind, value = event["type"], event["object"]
        if kind == "ERROR":
            raise _error(what, int(value.get("code") or 0), value)
        return WatchEvent(WatchKind(kind), value)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise KubeError(f"{what}: a line that is no event: {_shown(line.encode())}") from error


def _shown(body: bytes) -> str:
    return body.decode(errors="replace")[:MESSAGE_MAX]
