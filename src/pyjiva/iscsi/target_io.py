"""The target and its portals: accepts connections, carries bytes, keeps time.

For each connection one task waits, receives and handles (`_serve`), one sends what a full socket left over
(in BatchedStream), and one keeps time (`_watch`).  Everything else happens in the pure modules, in place.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import structlog
import trio

from pyjiva.errors import ConfigError, RemoteProtocolError
from pyjiva.iscsi.access import EVERYBODY, InitiatorRules
from pyjiva.iscsi.arrivals import Arrivals
from pyjiva.iscsi.authentication import NO_AUTHENTICATION, Authentication
from pyjiva.iscsi.chap import Chap, ChapSecrets, check_separate
from pyjiva.iscsi.connection import COMMAND_WINDOW, QUEUED_BYTES_MAX, Connection
from pyjiva.iscsi.control import LOGOUT_TIME_S, Control, Peer
from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.login import LOGIN_SEGMENT_BYTES, PORTAL_GROUP_TAG, LoginMachine, Stage
from pyjiva.iscsi.parameters import DATA_SEGMENT_LENGTH_MAX
from pyjiva.iscsi.pdu import AsyncEvent, LoginStatus
from pyjiva.iscsi.session import Session, SessionStatus, SessionTable
from pyjiva.recycled import Buffers, RecycledBuffers
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus
from pyjiva.transport import EndOfBatch
from pyjiva.transport.receive_buffer import SHARED_BYTES_MAX
from pyjiva.transport.slots import Slots
from pyjiva.transport.stream_io import BatchedStream, own_stream

__all__ = [
    "Target",
    "TargetOptions",
    "open_portal",
    "portal_address",
    "serve_portal",
]

log = structlog.get_logger(__name__)

SHUT_DOWN_TIME_S: Final = 5.0  # for tasks in flight and for logouts, when the target stops


@attrs.frozen(kw_only=True)
class TargetOptions:
    """What an operator may set."""

    target_name: str
    initiators: InitiatorRules = EVERYBODY
    chap: ChapSecrets | None = None
    """For normal sessions; None: no proof is asked for."""
    discovery_chap: ChapSecrets | None = None
    """For discovery sessions."""
    advertised: Sequence[str] = ()
    """HOST:PORT of every address that discovery tells; none: the one that the question came in on."""
    sessions_max: int = 64
    logins_max: int = 32  # connections that have not logged in: what a flood of them can hold is 32 buffers
    logins_per_address_max: int = 8  # of them, so that one machine's flood leaves room for others
    login_time_s: float = 15.0  # libiscsi and open-iscsi give up after 15 to 30 s themselves
    nop_interval_s: float = 10.0  # of silence before we ask whether the initiator is there
    silence_max_s: float = (
        90.0  # before we close: a paused virtual machine, or a program that sleeps, comes back
    )


def _or_own(buffers: Buffers | None) -> Buffers:
    return RecycledBuffers(SHARED_BYTES_MAX) if buffers is None else buffers


def format_portal(host: str, port: int) -> str:
    """An address as TargetAddress has it: IPv6 in brackets, without a zone."""
    host = host.partition("%")[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_of(socket_stream: trio.SocketStream) -> str:
    """The peer's address; empty when it is gone already."""
    try:
        return str(socket_stream.socket.getpeername()[0])
    except OSError:
        return ""


@attrs.define(eq=False)
class Target:
    """One iSCSI target: a name, logical units, sessions."""

    options: TargetOptions
    units: Mapping[int, LogicalUnit]
    batch: EndOfBatch
    draw: Callable[[int], bytes] = secrets.token_bytes
    """So many bytes that nobody can guess, for challenges."""
    buffers: Buffers = attrs.field(default=None, converter=_or_own)
    """Where write data is received into; None: buffers of its own."""
    make_server: Callable[[Mapping[int, LogicalUnit], str], DeviceServer] = DeviceServer
    _server: DeviceServer = attrs.field(init=False)
    _table: SessionTable = attrs.field(init=False)
    _streams: dict[Session, BatchedStream] = attrs.field(factory=dict, init=False)
    _logins: Slots = attrs.field(init=False)
    _closing: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.options.target_name.startswith(("iqn.", "eui.", "naa.")):
            raise ConfigError(f"target name {self.options.target_name!r}: starts with iqn., eui. or naa.")
        check_separate(filter(None, (self.options.chap, self.options.discovery_chap)))
        self._logins = Slots(self.options.logins_max, self.options.logins_per_address_max)
        port_name = f"{self.options.target_name},t,0x{PORTAL_GROUP_TAG:04x}"
        self._server = self.make_server(self.units, port_name)
        self._table = SessionTable(self.options.sessions_max)

    def sessions(self) -> list[SessionStatus]:
        """Who is logged in."""
        return [session.status() for session in self._table.all()]

    # LoginPolicy

    def has_target(self, target_name: str) -> bool:
        """Whether `target_name` is this target."""
        return target_name == self.options.target_name

    def allows(self, initiator_name: str, host: str) -> bool:
        """What the rules for initiators say."""
        return self.options.initiators.allow(initiator_name, host)

    def authentication(self, initiator_name: str, *, discovery: bool) -> Authentication:
        """CHAP where there are secrets for this type of session, with a challenge of its own."""
        chosen = self.options.discovery_chap if discovery else self.options.chap
        return NO_AUTHENTICATION if chosen is None else Chap(chosen, self.draw)

    def admit(self, login: LoginMachine) -> int | LoginStatus:
        """Make the session, in the place of an older one of the same initiator port."""
        if self._closing:
            return LoginStatus.SERVICE_UNAVAILABLE
        admitted = self._table.admit(login)
        if isinstance(admitted, LoginStatus):
            return admitted
        session, replaced = admitted
        if replaced is not None:
            # Its running tasks hold back the new session's commands until they are done (scsi.unit).
            log.info("iscsi-session-reinstated", initiator=session.initiator_name, isid=session.isid.hex())
            self._end(replaced)
        return session.tsih

    # SessionHost

    def send_targets(self, wanted: str, peer: Peer) -> Sequence[tuple[str, str]] | None:
        """This target, if it is meant (RFC 7143 appendix C) and the initiator may log in to it."""
        if wanted not in ("All", self.options.target_name):
            return [] if wanted else None
        if not self.allows(peer.initiator_name, peer.host):
            return []
        portals = self.options.advertised or (peer.portal,)
        addresses = [("TargetAddress", f"{portal},{PORTAL_GROUP_TAG}") for portal in portals]
        return [("TargetName", self.options.target_name), *addresses]

    def drop_sessions(self) -> None:
        """End every connection, after what is queued now was sent."""
        for session in self._table.all():
            stream = self._streams.get(session)
            if stream is not None:
                self.batch.at_very_end(stream.shut_down)

    def _end(self, session: Session) -> None:
        """Stop `session` now: nothing more is taken from it, nothing more is sent."""
        if session.connection is not None and not session.connection.closed:
            session.connection.close()
        stream = self._streams.get(session)
        if stream is not None:
            stream.shut_down()

    # Connections

    async def serve_connection(self, socket_stream: trio.SocketStream) -> None:
        """One connection from its first byte to its end; whatever goes wrong in it stays in it."""
        host = _host_of(socket_stream)
        if not self._logins.take(host):
            log.warning("iscsi-too-many-logins", host=host)
            await trio.aclose_forcefully(socket_stream)
            return
        peer = ""
        logging_in = True
        try:
            async with own_stream(socket_stream, self.batch, self.buffers) as stream:
                peer = format_portal(*stream.peer_address)
                framing = Framing(stream.buffer, LOGIN_SEGMENT_BYTES)
                session_login = None
                with trio.move_on_after(self.options.login_time_s) as scope:
                    session_login = await self._log_in(stream, framing, peer)
                self._logins.give_back(host)
                logging_in = False
                if scope.cancelled_caught:
                    log.warning("iscsi-login-timeout", peer=peer, seconds=self.options.login_time_s)
                if session_login is not None:
                    await self._run_session(stream, framing, session_login, peer)
        except RemoteProtocolError as error:
            log.warning("iscsi-protocol-error", peer=peer, error=str(error))
        except OSError as error:
            log.warning("iscsi-connection-error", peer=peer, error=str(error))
        except Exception:
            # A bug of ours must not end the other sessions: it costs this connection and is logged in full.
            log.exception("iscsi-connection-failed", peer=peer)
        finally:
            if logging_in:
                self._logins.give_back(host)

    async def _log_in(
        self, stream: BatchedStream, framing: Framing, peer: str
    ) -> tuple[LoginMachine, Session] | None:
        machine = LoginMachine(self, COMMAND_WINDOW, stream.peer_address[0])
        while machine.stage not in (Stage.FULL_FEATURE, Stage.FAILED):
            pdu = framing.next_pdu()
            if pdu is None:
                if not await stream.fill(framing.wanted_bytes):
                    return None
                continue
            reply = machine.receive(pdu)
            stream.send(*framing.encode(reply.header, (reply.data,), len(reply.data)))
            self.batch.end()
        if machine.stage is Stage.FAILED:
            log.warning(
                "iscsi-login-failed", peer=peer, initiator=machine.initiator_name, reason=machine.failure
            )
            await stream.wait_sent()
            return None
        session = next(s for s in self._table.all() if s.tsih == machine.tsih)
        return machine, session

    async def _run_session(
        self, stream: BatchedStream, framing: Framing, login: tuple[LoginMachine, Session], peer: str
    ) -> None:
        machine, session = login
        finished = trio.Event()
        framing.data_segment_length_max = DATA_SEGMENT_LENGTH_MAX
        framing.header_digest = machine.parameters.header_digest
        framing.data_digest = machine.parameters.data_digest
        nexus = Nexus(f"{session.initiator_name},i,0x{session.isid.hex()}")
        connection = Connection(
            stream, framing, self._server, nexus, machine.parameters, machine.stat_sn, machine.cmd_sn,
        )  # fmt: skip
        control = Control(
            connection,
            self,
            discovery=machine.discovery,
            target_name=self.options.target_name,
            peer=Peer(machine.initiator_name, machine.host, format_portal(*stream.local_address)),
            cid=machine.cid,
            finished=finished.set,
        )
        session.connection, session.control = connection, control
        session.initiator_address, session.started_at = peer, time.time()
        self._streams[session] = stream
        if not machine.discovery:
            self._server.attach(nexus)
        log.info(
            "iscsi-session-started", peer=peer, initiator=session.initiator_name, tsih=session.tsih,
            type="discovery" if session.discovery else "normal",
        )  # fmt: skip
        error: RemoteProtocolError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, stream, control, finished)
                try:
                    await self._serve(stream, framing, connection)
                except RemoteProtocolError as raised:
                    error = raised  # goes on below, without the nursery's exception group
                nursery.cancel_scope.cancel()
        finally:
            if not connection.closed:
                connection.close()
            del self._streams[session]
            self._table.remove(session)
            self._notify()
            log.info("iscsi-session-ended", peer=peer, initiator=session.initiator_name, tsih=session.tsih)
        if error is not None:
            raise error

    async def _serve(self, stream: BatchedStream, framing: Framing, connection: Connection) -> None:
        """Handle all that comes together, and send once."""
        arrivals = Arrivals(connection, framing, self.batch)
        arrivals.arrived()  # what came with the last of the login
        while not connection.closed:
            if arrivals.stopped:  # the initiator does not take its answers
                await stream.wait_queued_below(QUEUED_BYTES_MAX // 2)
                arrivals.arrived()
            elif not await stream.serve(arrivals.wanted_bytes, arrivals.arrived):
                return

    async def _watch(self, stream: BatchedStream, control: Control, finished: trio.Event) -> None:
        """Ask a silent initiator whether it is there; close when it is not, or when the session is over."""
        silent_s = 0.0
        while True:
            before = (stream.received_bytes, stream.queued_bytes)
            with trio.move_on_after(self.options.nop_interval_s):
                await finished.wait()
                with trio.move_on_after(LOGOUT_TIME_S):
                    await stream.wait_sent()
                stream.shut_down()
                return
            if (stream.received_bytes, stream.queued_bytes) != before:  # it sends, or takes what we send
                silent_s = 0.0
                continue
            silent_s += self.options.nop_interval_s
            if silent_s > self.options.silence_max_s:
                log.warning("iscsi-initiator-silent", peer=format_portal(*stream.peer_address))
                stream.shut_down()
                return
            if silent_s == self.options.nop_interval_s and not control.discovery:
                control.ping()
                self.batch.end()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def shut_down(self) -> None:
        """Refuse new logins, ask the initiators to log out, wait a little for them and for their tasks."""
        self._closing = True
        self._announce(AsyncEvent.LOGOUT_REQUESTED)
        with trio.move_on_after(SHUT_DOWN_TIME_S):
            while self._table.all():
                await self._changed.wait()
        self._announce(AsyncEvent.SESSION_WILL_DROP)
        self.drop_sessions()
        self.batch.end()
        with trio.move_on_after(SHUT_DOWN_TIME_S):
            while self._table.all():
                await self._changed.wait()

    def _announce(self, event: AsyncEvent) -> None:
        for session in self._table.all():
            if session.control is not None and not session.discovery:
                session.control.announce(event)
        self.batch.end()


async def open_portal(host: str, port: int) -> list[trio.SocketListener]:
    """Take `host`:`port` (0: any free one); connections wait in the kernel's queue until they are served.

    Raises OSError: the address is in use or not ours.
    """
    return await trio.open_tcp_listeners(port, host=host)


def portal_address(listeners: Sequence[trio.SocketListener]) -> tuple[str, int]:
    """The address that `open_portal` really took."""
    bound = listeners[0].socket.getsockname()
    return bound[0], bound[1]


async def serve_portal(target: Target, listeners: list[trio.SocketListener]) -> None:
    """Serve `target` at an opened portal until cancelled."""
    await trio.serve_listeners(target.serve_connection, listeners)
