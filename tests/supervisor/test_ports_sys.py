"""Held ports: a child may listen on them, nobody else gets them."""

import re
import socket

import pytest

from pyjiva.errors import ConfigError
from pyjiva.supervisor import HeldPorts

HOST = "127.0.0.1"


@pytest.mark.parametrize("lives", [1, 2])
def test_a_listener_comes_and_goes_beside_it(lives: int) -> None:
    with HeldPorts() as held:
        port = held.hold(HOST, 0)
        for _ in range(lives):
            with (
                socket.create_server((HOST, port)) as listener,
                socket.create_connection((HOST, port)) as client,
                listener.accept()[0] as accepted,
            ):
                accepted.sendall(b"x")
                assert client.recv(1) == b"x"


def test_a_second_holder_is_refused_while_nobody_listens() -> None:
    with HeldPorts() as held, HeldPorts() as other:
        port = held.hold(HOST, 0)
        with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{port}: Address already in use"):
            other.hold(HOST, port)
        held.close()
        assert other.hold(HOST, port) == port


def test_one_that_somebody_listens_on_is_refused() -> None:
    with HeldPorts() as held, socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not held.try_hold(HOST, port)
        listener.close()
        assert held.try_hold(HOST, port)  # the failure held nothing back


def test_nobody_who_asks_for_any_port_gets_it() -> None:
    with HeldPorts() as held:
        ours = {held.hold(HOST, 0) for _ in range(20)}
        assert len(ours) == 20
        others = [socket.create_server((HOST, 0)) for _ in range(50)]
        taken = {listener.getsockname()[1] for listener in others}
        for listener in others:
            listener.close()
        assert not ours & taken


def test_the_first_free_one_of_many() -> None:
    with HeldPorts() as held, HeldPorts() as other:
        port = held.hold(HOST, 0)
        assert other.hold_first_free(HOST, range(port, port + 200)) > port
        with pytest.raises(ConfigError, match=f"no free port from {port} to {port} on {HOST}"):
            other.hold_first_free(HOST, range(port, port + 1))


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"], ids=["another machine", "no name"])
def test_a_host_that_is_not_here_is_one_clear_line(host: str) -> None:
    with HeldPorts() as held, pytest.raises(ConfigError) as caught:
        held.hold(host, 3260)
    assert re.fullmatch(rf"cannot listen on {host}:3260: [A-Za-z ]+", str(caught.value))


def test_ipv6_is_shown_in_brackets() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, HeldPorts() as held:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on \[::1\]:{port}: "):
            held.hold("::1", port)
        assert held.hold("::1", 0) > 0
