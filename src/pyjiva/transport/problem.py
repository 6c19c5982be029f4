"""What an HTTP API answers when it does not do what was asked (RFC 9457), and reading that.  Pure.

`type` is always about:blank, as there is nothing to read at another address; what a program is to look at is
`reason`, a member of our own.
"""

import enum
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import attrs

from pyjiva.errors import PyjivaError, StorageError, StorageFailure

__all__ = ["PROBLEM_SCHEMA", "PROBLEM_TYPE", "Problem", "ProblemError", "Reason", "detail_of", "of_status"]

PROBLEM_TYPE: Final = "application/problem+json"


class Reason(enum.Enum):
    """Why not, for programs.  What the storage could not do has a StorageFailure's name instead."""

    INVALID_PARAMETER = "invalid-parameter"
    """The request makes no sense, now or ever."""
    BAD_REQUEST = "bad-request"
    """As above, of what is not a parameter."""
    TOKEN_NEEDED = "token-needed"
    NOT_FOUND = "not-found"
    """There is no such path."""
    NO_SUCH_OPERATION = "no-such-operation"
    NO_SUCH_SNAPSHOT = "no-such-snapshot"
    NO_SUCH_VOLUME = "no-such-volume"
    NO_SUCH_POOL = "no-such-pool"
    BAD_POLICY = "bad-policy"
    """A StorageClass or a claim asks for what there is not."""
    ALREADY_EXISTS = "already-exists"
    """There is another one of this name."""
    METHOD_NOT_ALLOWED = "method-not-allowed"
    KEY_BUSY = "idempotency-key-busy"
    KEY_OF_ANOTHER = "idempotency-key-of-another-request"
    REFUSED = "refused"
    """As the volume is now it cannot be; nothing has changed."""
    UNAVAILABLE = "unavailable"
    """It cannot be done now; may be asked for again."""
    INTERNAL_ERROR = "internal-error"
    """A bug of ours; it is in the log."""


STATUS: Final[dict[Reason, HTTPStatus]] = {
    Reason.INVALID_PARAMETER: HTTPStatus.BAD_REQUEST,
    Reason.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    Reason.TOKEN_NEEDED: HTTPStatus.UNAUTHORIZED,
    Reason.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Reason.NO_SUCH_OPERATION: HTTPStatus.NOT_FOUND,
    Reason.NO_SUCH_SNAPSHOT: HTTPStatus.NOT_FOUND,
    Reason.NO_SUCH_VOLUME: HTTPStatus.NOT_FOUND,
    Reason.NO_SUCH_POOL: HTTPStatus.NOT_FOUND,
    Reason.BAD_POLICY: HTTPStatus.BAD_REQUEST,
    Reason.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Reason.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Reason.KEY_BUSY: HTTPStatus.CONFLICT,
    Reason.KEY_OF_ANOTHER: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.REFUSED: HTTPStatus.CONFLICT,
    Reason.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
}

#: JSON Schema of the answer's body.
PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string", "description": "the name of the status"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "why, for people"},
        "reason": {
            "enum": [*(reason.value for reason in Reason), *(failure.value for failure in StorageFailure)],
            "description": "why, for programs",
        },
    },
    "required": ["type", "title", "status", "detail", "reason"],
    "additionalProperties": False,
}


@attrs.frozen
class Problem:
    """One answer."""

    status: HTTPStatus
    reason: str
    detail: str

    @classmethod
    def of(cls, reason: Reason, detail: str) -> "Problem":
        """With the status that the reason has."""
        return cls(STATUS[reason], reason.value, detail)

    @classmethod
    def of_storage(cls, error: StorageError) -> "Problem":
        """It can be asked for again: a volume that is parked, say, will go on."""
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, error.failure.value, error.detail)

    def body(self) -> dict[str, Any]:
        """As PROBLEM_SCHEMA says."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "reason": self.reason,
        }


class ProblemError(PyjivaError):
    """Raised where an API finds that it will not do what was asked."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem.of(reason, detail)


def of_status(status: int, detail: str) -> Problem:
    """What the router or the framework found wrong."""
    reasons = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED, 500: Reason.INTERNAL_ERROR}
    return Problem(HTTPStatus(status), reasons.get(status, Reason.BAD_REQUEST).value, detail)


def detail_of(body: object) -> str:
    """What an answer says to people, in one line.  Raises ValueError: it is no problem."""
    if not isinstance(body, Mapping) or not isinstance(body.get("detail"), str):
        raise ValueError("not a problem")
    return " ".join(body["detail"].split())
