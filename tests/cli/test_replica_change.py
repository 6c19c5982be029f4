"""`pyjiva replica add` and `rm`: against a stand-in, and with processes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import pytest
from click.testing import CliRunner

from pyjiva.cli.main import commands
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.transport.problem import Problem, Reason
from tests.cli.fake_api import STATUS, Api
from tests.cli.processes import end, running, wait_state


def pyjiva(*arguments: str) -> tuple[int, str]:
    """Run a command; its exit code and what it said."""
    result = CliRunner().invoke(commands, ["replica", *arguments])
    return result.exit_code, result.output


def test_what_is_asked_for(api: Api) -> None:
    api.paths |= {"/v1/replicas/4": (202, {}), "/v1/replicas/5": (202, {})}
    assert pyjiva("add", "4=10.0.0.4:9502", "--api", api.url) == (0, "")
    assert pyjiva("add", "5=[fd00::5]:9502", "--witness", "--api", api.url) == (0, "")
    assert pyjiva("rm", "4", "--api", api.url) == (0, "")
    assert api.asked == [
        "POST /v1/replicas/4?address=10.0.0.4%3A9502&witness=0",
        "POST /v1/replicas/5?address=%5Bfd00%3A%3A5%5D%3A9502&witness=1",
        "DELETE /v1/replicas/4",
    ]


def test_with_wait_the_end_is_waited_for(api: Api) -> None:
    api.paths |= {"/v1/replicas/1": (202, {}), "/v1/replicas/9": (202, {}), "/v1/volume": (200, STATUS)}
    assert pyjiva("add", "1=10.0.0.1:9502", "--wait", "--api", api.url)[0] == 0
    assert pyjiva("rm", "9", "--wait", "--api", api.url)[0] == 0


def test_a_refusal_is_one_line(api: Api) -> None:
    api.paths["/v1/replicas/1"] = (
        409,
        Problem.of(Reason.REFUSED, "replica 1 is the last one in sync").body(),
    )
    code, output = pyjiva("rm", "1", "--api", api.url)
    assert code == 1
    assert output == f"pyjiva: the controller refused at {api.url}: replica 1 is the last one in sync\n"


@pytest.mark.parametrize("arguments", [("add", "4"), ("add", "x=10.0.0.4:1"), ("rm", "zero"), ("rm", "0")])
def test_what_makes_no_sense_is_not_sent(arguments: tuple[str, ...], api: Api) -> None:
    assert pyjiva(*arguments, "--api", api.url)[0] == 2
    assert api.asked == []


@attrs.define
class Volume:
    """Two replicas and a witness, a controller that is told of these, and room for one more replica."""

    directory: Path
    key: Path
    data: list[str]
    health: list[str]
    portal: str
    api: str
    processes: ExitStack

    def start_replica(self, number: int, *options: str) -> None:
        self.processes.enter_context(
            running(
                *("replica", "--key-file", str(self.key), "--replica-id", str(number)),
                *("--data", self.data[number], "--health", self.health[number]),
                *("--directory", str(self.directory / f"replica-{number}"), *options),
            )
        )

    def controller(self, *options: str) -> tuple[str, ...]:
        return (
            *("controller", "--key-file", str(self.key), "--api", self.api, "--portal", self.portal),
            *("--replica", f"1={self.data[1]}", "--replica", f"2={self.data[2]}"),
            *("--witness", f"3={self.data[3]}", *options),
        )

    def modes(self) -> dict[int, str]:
        status = httpx.get(f"http://{self.api}/v1/volume", trust_env=False).json()
        return {replica["id"]: replica["mode"] for replica in status["replicas"]}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with HeldPorts() as ports:
        addresses = [f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(12)]
    with ExitStack() as processes:
        volume = Volume(
            tmp_path, key, addresses[:5], addresses[5:10], addresses[10], addresses[11], processes
        )
        for number, options in ((1, ()), (2, ()), (3, ("--witness",)), (4, ())):
            volume.start_replica(number, *options)
        yield volume


@pytest.mark.real
def test_replicas_are_exchanged_and_the_next_controller_knows(volume: Volume) -> None:
    api = ("--api", volume.api)
    with running(*volume.controller("--new-volume")):
        wait_state(volume.api, "healthy")
        assert volume.modes() == {1: "in-sync", 2: "in-sync", 3: "witness"}
        code, output = pyjiva("add", f"4={volume.data[1]}", *api)
        assert (code, output) == (0, ""), "at an address where replica 1 is"
        assert pyjiva("rm", "4", "--wait", *api) == (0, "")
        assert pyjiva("add", f"4={volume.data[4]}", "--wait", *api) == (0, "")
        wait_state(volume.api, "healthy")
        assert volume.modes() == {1: "in-sync", 2: "in-sync", 3: "witness", 4: "in-sync"}
        assert pyjiva("rm", "1", "--wait", *api) == (0, "")
        code, output = pyjiva("rm", "1", *api)
        assert code == 1
        assert "there is no replica 1" in output
    with running(*volume.controller()) as controller:  # told of 1, 2 and 3
        wait_state(volume.api, "healthy")
        assert volume.modes() == {2: "in-sync", 3: "witness", 4: "in-sync"}
        end(controller)
