"""The sessions of a target: who is logged in, reinstatement, limits (RFC 7143 §6.3.5).  Pure."""

from typing import Final

import attrs

from pyjiva.iscsi.connection import Connection
from pyjiva.iscsi.control import Control
from pyjiva.iscsi.login import LoginMachine
from pyjiva.iscsi.pdu import LoginStatus

__all__ = ["Session", "SessionStatus", "SessionTable"]

TSIH_MAX: Final = 0xFFFF

Port = tuple[str, bytes]
"""Initiator name and ISID: an initiator port."""


@attrs.frozen
class SessionStatus:
    """One session, for people and programs."""

    initiator_name: str
    initiator_address: str
    isid: str
    tsih: int
    session_type: str
    """`normal` or `discovery`."""
    started_at: float
    """Seconds since the epoch."""
    commands_in_flight: int


@attrs.define(eq=False)
class Session:
    """One session, from the end of its login to the end of its connection."""

    initiator_name: str
    isid: bytes
    tsih: int
    discovery: bool
    connection: Connection | None = None
    control: Control | None = None
    initiator_address: str = ""
    started_at: float = 0.0

    @property
    def port(self) -> Port:
        """What makes a later login a reinstatement of this session."""
        return self.initiator_name, self.isid

    def status(self) -> SessionStatus:
        """A snapshot."""
        return SessionStatus(
            initiator_name=self.initiator_name,
            initiator_address=self.initiator_address,
            isid=self.isid.hex(),
            tsih=self.tsih,
            session_type="discovery" if self.discovery else "normal",
            started_at=self.started_at,
            commands_in_flight=len(self.connection.commands) if self.connection else 0,
        )


@attrs.define(eq=False)
class SessionTable:
    """Every session of a target."""

    sessions_max: int
    discovery_max: int = 16
    """Of them, discovery sessions: they need no target, so they must not keep initiators out of it."""
    _by_tsih: dict[int, Session] = attrs.field(factory=dict, init=False)
    _next_tsih: int = attrs.field(default=1, init=False)

    def __len__(self) -> int:
        return len(self._by_tsih)

    def all(self) -> list[Session]:
        """Oldest first."""
        return list(self._by_tsih.values())

    def admit(self, login: LoginMachine) -> tuple[Session, Session | None] | LoginStatus:
        """The new session and the one that it takes the place of; or why the login fails."""
        port = (login.initiator_name, login.isid)
        same = [s for s in self._by_tsih.values() if s.port == port and s.discovery == login.discovery]
        if login.tsih:
            # A second connection, or a connection in the place of a broken one: MaxConnections is 1 and
            # ErrorRecoveryLevel 0, so the initiator has to reinstate the session (§6.3.5).
            known = any(session.tsih == login.tsih for session in same)
            return LoginStatus.TOO_MANY_CONNECTIONS if known else LoginStatus.SESSION_DOES_NOT_EXIST
        replaced = same[0] if same and not login.discovery else None
        alike = sum(session.discovery == login.discovery for session in self._by_tsih.values())
        if replaced is None and alike >= (self.discovery_max if login.discovery else self.sessions_max):
            return LoginStatus.OUT_OF_RESOURCES
        if replaced is not None:
            del self._by_tsih[replaced.tsih]
        session = Session(login.initiator_name, login.isid, self._new_tsih(), login.discovery)
        self._by_tsih[session.tsih] = session
        return session, replaced

    def _new_tsih(self) -> int:
        while True:
            tsih = self._next_tsih
            self._next_tsih = tsih % TSIH_MAX + 1
            if tsih not in self._by_tsih:
                return tsih

    def remove(self, session: Session) -> None:
        """The session has ended; one that was replaced is gone already."""
        if self._by_tsih.get(session.tsih) is session:
            del self._by_tsih[session.tsih]
