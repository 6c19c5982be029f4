"""What a login must prove, and how: the seam between the login machine and authentication methods.  Pure.

The login machine hands every security key to the `Authentication` that the target chose for this login; it
says what to answer and whether the initiator may go on.  `NoAuthentication` is AuthMethod=None.
"""

import enum
from collections.abc import Mapping
from typing import Final, Protocol

import attrs

__all__ = ["NO_AUTHENTICATION", "Authentication", "AuthenticationStep", "NoAuthentication", "Verdict"]


class Verdict(enum.Enum):
    """How far a login has come with proving who it is."""

    PENDING = "more keys are needed"
    PASSED = "may leave the security stage"
    FAILED = "wrong, or nothing that we accept"
    MALFORMED = "not the keys or values of this step"
    MISSING = "a key of this step is not there"


@attrs.frozen
class AuthenticationStep:
    """The answer to the security keys of one login request."""

    verdict: Verdict
    answer: Mapping[str, str] = {}
    reason: str = ""
    """Why it did not pass, for our log: the initiator is told no more than the verdict."""


class Authentication(Protocol):
    """One login's proof."""

    @property
    def required(self) -> bool:
        """Whether a login without a security stage must be refused."""

    def receive(self, keys: Mapping[str, str]) -> AuthenticationStep:
        """The security keys of one complete login request, perhaps none."""


@attrs.frozen
class NoAuthentication:
    """Everybody may log in."""

    required: bool = False

    def receive(self, keys: Mapping[str, str]) -> AuthenticationStep:
        """AuthMethod=None if it is offered; another method alone cannot be accepted."""
        offered = keys.get("AuthMethod")
        if any(key != "AuthMethod" for key in keys):
            return AuthenticationStep(Verdict.MALFORMED, reason="keys of a method that was not agreed")
        if offered is None:
            return AuthenticationStep(Verdict.PASSED)
        if "None" in offered.split(","):
            return AuthenticationStep(Verdict.PASSED, {"AuthMethod": "None"})
        return AuthenticationStep(Verdict.FAILED, reason="AuthMethod=None is not offered")


NO_AUTHENTICATION: Final = NoAuthentication()
