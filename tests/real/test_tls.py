"""A volume whose daemons speak TLS: it works, and who has no certificate is told nothing."""

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest

from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.testing.certificates import Authority
from pyjiva.transport.tls_sys import Tls, TlsFiles, client_context
from tests.cli.processes import end, running
from tests.real.volume_process import needs, wait_until

pytestmark = pytest.mark.real

HERE = "127.0.0.1"
TOKEN = "0123456789abcdef"


@attrs.frozen
class Secure:
    """Two replicas and a controller, and who may ask them."""

    api: str
    portal: str
    data: tuple[str, ...]
    health: tuple[str, ...]
    files: TlsFiles
    stranger: TlsFiles
    token_file: Path

    @property
    def options(self) -> list[str]:
        """Of a command, with a certificate."""
        files = self.files
        return [
            *("--api", f"https://{self.api}", "--tls-ca", str(files.authority)),
            *("--tls-cert", str(files.certificate), "--tls-key", str(files.key)),
        ]


def pyjiva(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pyjiva.cli.main", *words], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", params=["certificate", "token"])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """`token`: the HTTP ports ask for a token, and for no certificate."""
    place = tmp_path_factory.mktemp("tls")
    files = Authority(place).sign("machine", HERE)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere, "other").sign("stranger", HERE)
    key, token = place / "key", place / "token"
    key.write_text("ab" * 32)
    token.write_text(TOKEN + "\n")
    for file in (key, token):
        file.chmod(0o600)
    with HeldPorts() as ports:
        api, portal, *rest = (f"{HERE}:{ports.hold(HERE, 0)}" for _ in range(6))
    data, health = rest[:2], rest[2:]
    tls = [
        "--tls-cert",
        str(files.certificate),
        "--tls-key",
        str(files.key),
        "--tls-ca",
        str(files.authority),
    ]
    shared = ["--key-file", str(key), *tls]
    if request.param == "token":
        shared += ["--api-token-file", str(token)]
    with ExitStack() as processes:
        for n in (1, 2):
            where = [
                "--data",
                data[n - 1],
                "--health",
                health[n - 1],
                "--directory",
                str(place / f"replica-{n}"),
            ]
            processes.enter_context(running("replica", *shared, "--replica-id", str(n), *where))
        given = [word for n in (1, 2) for word in ("--replica", f"{n}={data[n - 1]}")]
        controller = processes.enter_context(
            running("controller", *shared, *given, "--api", api, "--portal", portal, "--new-volume")
        )
        found = Secure(api, portal, tuple(data), tuple(health), files, stranger, token)
        asks = [*found.options, "--api-token-file", str(token)]
        wait_until(lambda: pyjiva("status", *asks).returncode == 0, "healthy")
        yield found
        end(controller)


def qemu_io(url: str, *commands: str) -> None:
    for command in commands:
        done = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", command, url], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Pattern verification failed" not in done.stdout


@needs(("qemu-io", "qemu-utils"))
def test_it_takes_what_is_written(volume: Secure) -> None:
    qemu_io(
        f"iscsi://{volume.portal}/iqn.2016-09.com.openebs.jiva:demo/0", "write -P 7 0 1M", "read -P 7 0 1M"
    )


def test_plain_http_is_answered_nothing(volume: Secure) -> None:
    for address in (volume.api, *volume.health):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://{address}/v1/health", trust_env=False)


def test_who_may_ask(volume: Secure, request: pytest.FixtureRequest) -> None:
    """A certificate where none is asked for does no harm; a token alone opens nothing that asks for one."""
    by_token = "token" in request.node.name
    files, stranger = volume.files, volume.stranger
    contexts = {
        "ours": client_context(files.authority, files.certificate, files.key),
        "none": client_context(files.authority, None, None),
        "another authority's": client_context(files.authority, stranger.certificate, stranger.key),
    }
    for whose, context in contexts.items():
        assert context is not None
        for token in ("", TOKEN):
            header = {"Authorization": f"Bearer {token}"} if token else {}
            for address in (volume.api, *volume.health):
                admitted = bool(token) if by_token else whose == "ours"
                try:
                    answer = httpx.get(
                        f"https://{address}/metrics", headers=header, verify=context, trust_env=False
                    )
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    assert not by_token, "there it would be 401"
                    assert not admitted
                    continue
                assert answer.status_code == (200 if admitted else 401), (whose, token, address)


def test_a_stranger_hears_nothing_on_the_data_ports(volume: Secure) -> None:
    stranger = Tls.read(volume.stranger)
    stranger.client.load_verify_locations(volume.files.authority)
    nobody = client_context(volume.files.authority, None, None)
    for context in (stranger.client, nobody):
        assert context is not None
        for address in volume.data:
            host, _, port = address.partition(":")
            with pytest.raises(ssl.SSLError):
                hear(host, int(port), context)


def hear(host: str, port: int, context: ssl.SSLContext) -> bytes:
    """What is answered to a frame."""
    peer = socket.create_connection((host, port), timeout=20)
    with peer, context.wrap_socket(peer, server_hostname=host) as secure:
        secure.sendall(b"PJVF" + bytes(60))
        return secure.recv(1)


def test_the_commands_ask_by_https(volume: Secure, request: pytest.FixtureRequest) -> None:
    token = ["--api-token-file", str(volume.token_file)] if "token" in request.node.name else []
    shown = pyjiva("status", *volume.options, *token, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["state"] == "healthy"
    unsure = pyjiva("status", "--api", f"https://{volume.api}", *token)
    assert unsure.returncode == 1
    assert "certificate verify failed" in unsure.stderr


def test_a_controller_without_tls_is_told_why(volume: Secure, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with HeldPorts() as ports:
        api, portal = (f"{HERE}:{ports.hold(HERE, 0)}" for _ in range(2))
    given = [word for n in (1, 2) for word in ("--replica", f"{n}={volume.data[n - 1]}")]
    with running(
        "controller", "--key-file", str(key), *given, "--api", api, "--portal", portal
    ) as controller:
        said = wait_until(lambda: pyjiva("explain", "--api", api).stdout, "an answer")
        assert "demo is parked." in said
        end(controller)


def test_half_of_the_options_are_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    files = Authority(tmp_path).sign("machine", HERE)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyjiva.cli.replica", "--volume", "demo", "--volume-id", "1" * 32),
            *(
                "--size",
                "1MiB",
                "--replica-id",
                "1",
                "--directory",
                str(tmp_path / "r"),
                "--key-file",
                str(key),
            ),
            *("--tls-cert", str(files.certificate)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "TLS needs --tls-cert, --tls-key, --tls-ca: --tls-key, --tls-ca is missing" in done.stderr
    assert not (tmp_path / "r").exists()


def test_renewed_files_are_taken_while_it_runs(volume: Secure) -> None:
    """The last test of this volume: its authority is another one afterwards."""

    def shown(address: str) -> bytes:
        host, _, port = address.rpartition(":")
        context = client_context(volume.files.authority, volume.files.certificate, volume.files.key)
        assert context is not None
        with (
            socket.create_connection((host, int(port)), timeout=5) as below,
            context.wrap_socket(below, server_hostname=host) as stream,
        ):
            return stream.getpeercert(binary_form=True) or b""

    def own() -> bytes:
        return ssl.PEM_cert_to_DER_cert(volume.files.certificate.read_text())

    asks = [*volume.options, "--api-token-file", str(volume.token_file)]
    before = own()
    authority = Authority(volume.files.authority.parent)
    authority.sign("machine", HERE)
    assert own() != before

    def is_renewed(address: str) -> bool:
        try:
            return shown(address) == own()
        except OSError:  # the old certificate is of no authority any more
            return False

    for address in (volume.api, *volume.health):
        wait_until(partial(is_renewed, address), f"the new certificate at {address}")
    assert pyjiva("status", *asks).returncode == 0
    assert pyjiva("scrub", "--wait", *asks).returncode == 0, "its replicas are connected as before"


@needs(("qemu-io", "qemu-utils"))
def test_a_clone_is_filled_over_https(volume: Secure, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By `pyjiva clone`, which hands on what it was given; and by another authority's it is not."""
    by_token = "token" in request.node.name
    asks = [*volume.options, "--api-token-file", str(volume.token_file)]
    qemu_io(f"iscsi://{volume.portal}/iqn.2016-09.com.openebs.jiva:demo/0", "write -P 7 0 1M")
    name = f"clone-{'token' if by_token else 'certificate'}"
    assert pyjiva("snapshot", "create", name, *asks).returncode == 0
    files = volume.files
    proof = ["--of-token-file", str(volume.token_file)] if by_token else []
    if not by_token:
        proof = ["--of-tls-cert", str(files.certificate), "--of-tls-key", str(files.key)]
    command = [
        sys.executable,
        "-m",
        "pyjiva.cli.main",
        "clone",
        name,
        "copy",
        "--of",
        f"https://{volume.api}",
    ]
    own = ["--data", str(tmp_path), "--replicas", "1", "--portal", f"{HERE}:0", "--api", f"{HERE}:0"]
    stranger = pyjiva(*command[3:], *own, *proof, "--of-tls-ca", str(volume.stranger.authority))
    assert (stranger.returncode, stranger.stderr.count("\n")) == (1, 1)
    assert "certificate" in stranger.stderr
    with (
        (tmp_path / "log").open("w") as log,
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(
            [*command, *own, *proof, "--of-tls-ca", str(files.authority)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
        ) as process,
    ):
        try:
            line = wait_until((tmp_path / "out").read_text, "the clone to take I/O")
            ready = dict(word.split("=", 1) for word in line.split()[1:])
            shown = partial(pyjiva, "status", "--json", "--api", ready["api"])
            wait_until(lambda: json.loads(shown().stdout)["filled"] in (1, None), "the clone to be full")
            qemu_io(f"iscsi://{ready['portal']}/{ready['iqn']}/0", "read -P 7 0 1M")
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, (tmp_path / "log").read_text()
