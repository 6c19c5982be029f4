"""Options from a file and from the environment: who wins, and what is said of what cannot be."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from pyjiva.cli import controller, replica, up
from pyjiva.cli.access import AccessOptions, read_access
from pyjiva.cli.configuration import (
    CONFIG,
    FOR_ONE_START,
    ON_COMMAND_LINE,
    configurable,
    is_of_a_daemon,
    variable_of,
)
from pyjiva.cli.daemon import ADDRESS, SIZE, Address
from pyjiva.cli.fill import take_fill
from pyjiva.cli.limits import take_limits
from pyjiva.cli.replica_address import REPLICA
from pyjiva.cli.schedule import take_schedule
from pyjiva.cli.tuning import take_tuning
from pyjiva.controller import ReplicaAddress

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"
MIB = 1 << 20


def make_command() -> tuple[click.Command, dict[str, Any]]:
    """A command with an option of every kind, and where what it was given last is to be found."""
    given: dict[str, Any] = {}

    @configurable("test-program", command_line_only=("once",), same={"path": "TEST_SECRET"})
    @click.command()
    @click.option("--name", "called", required=True)
    @click.option("--size", "size_bytes", type=SIZE, default="1MiB")
    @click.option("--count", type=int, default=1)
    @click.option("--few", type=click.IntRange(0, 3), default=1)
    @click.option("--time", type=float, default=1.5)
    @click.option("--at", "ats", type=ADDRESS, multiple=True, default=["127.0.0.1:1"])
    @click.option("--replica", "replicas", type=REPLICA, multiple=True)
    @click.option("--path", type=click.Path(path_type=Path))
    @click.option("--quick", is_flag=True)
    @click.option("--once", is_flag=True)
    def command(**options: Any) -> None:
        given.update(options)

    return command, given


def run(
    tmp_path: Path, text: str, *arguments: str, env: Mapping[str, str] | None = None
) -> tuple[Result, dict[str, Any]]:
    command, given = make_command()
    file = tmp_path / "some.toml"
    file.write_text(text)
    result = CliRunner().invoke(command, [*arguments, "--config", str(file)], env=dict(env or {}))
    return result, given


WHOLE = """
name = "demo"
size = "2MiB"
count = 7
few = 3
time = 2
at = ["127.0.0.1:5", "[::1]:6"]
replica = ["1=10.0.0.1:9502"]
path = "key"
quick = true
"""


def test_a_file_gives_every_kind_of_option(tmp_path: Path) -> None:
    result, given = run(tmp_path, WHOLE)
    assert result.exit_code == 0, result.output
    assert given == {
        "called": "demo",
        "size_bytes": 2 * MIB,
        "count": 7,
        "few": 3,
        "time": 2.0,
        "ats": (Address("127.0.0.1", 5), Address("::1", 6)),
        "replicas": (ReplicaAddress(1, "10.0.0.1", 9502),),
        "path": tmp_path / "key",
        "quick": True,
        "once": False,
    }


def test_a_size_may_be_a_number_and_a_path_may_lie_elsewhere(tmp_path: Path) -> None:
    result, given = run(tmp_path, 'name = "a"\nsize = 4096\npath = "/srv/key"\nat = []')
    assert result.exit_code == 0, result.output
    assert (given["size_bytes"], given["path"], given["ats"]) == (4096, Path("/srv/key"), ())


@pytest.mark.parametrize(
    ("line", "variable", "said", "argument", "expected"),
    [
        # What four places say of one option: the file, the environment, the command line; then
        # what comes of none, the file, file and environment, and all three.
        ("count = 7", "8", "COUNT", ("--count", "9"), ("count", 1, 7, 8, 9)),
        ('size = "2MiB"', "3MiB", "SIZE", ("--size", "4MiB"), ("size_bytes", MIB, 2 * MIB, 3 * MIB, 4 * MIB)),
        (
            'at = ["h:2", "h:3"]',
            "h:4 h:5",
            "AT",
            ("--at", "h:6"),
            ("ats", ("127.0.0.1:1",), ("h:2", "h:3"), ("h:4", "h:5"), ("h:6",)),
        ),
        ("quick = true", "false", "QUICK", ("--quick",), ("quick", False, True, False, True)),
    ],
    ids=["count", "size", "at", "quick"],
)
def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    line: str, variable: str, said: str, argument: tuple[str, ...], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    name, *values = expected
    env = {f"TEST_PROGRAM_{said}": variable}
    base = 'name = "demo"\n'
    results = [
        run(tmp_path, base),
        run(tmp_path, base + line),
        run(tmp_path, base + line, env=env),
        run(tmp_path, base + line, *argument, env=env),
    ]
    for (result, given), value in zip(results, values, strict=True):
        assert result.exit_code == 0, result.output
        found = given[name]
        assert (tuple(map(str, found)) if isinstance(found, tuple) else found) == value


def test_a_variable_that_holds_the_secret_itself_wins_over_a_file_of_it(tmp_path: Path) -> None:
    _, given = run(tmp_path, 'name = "a"\npath = "key"', env={"TEST_SECRET": "alice s3cret"})
    assert given["path"] is None
    result, _ = run(tmp_path, 'name = "a"\npath = 5', env={"TEST_SECRET": "alice s3cret"})
    assert result.exit_code == 2, "it is checked all the same"


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    command, given = make_command()
    file = tmp_path / "some.toml"
    file.write_text('name = "demo"')
    result = CliRunner().invoke(command, [], env={"TEST_PROGRAM_CONFIG": str(file)})
    assert (result.exit_code, given["called"]) == (0, "demo")


def test_an_option_that_is_needed_may_stand_in_the_file_and_must_stand_somewhere(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "count = 2")
    assert result.exit_code == 2
    assert "--name" in result.stderr


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nmae = 'a'", "nmae: no such key"),
        ("called = 'a'", "called: no such key"),  # the option's name, not the program's
        ("[name]\na = 1", "name: a string is needed, not a table"),
        ("size_bytes = 1", "size_bytes: no such key"),
        ("name = 5", "name: a string is needed, not 5"),
        ("name = ['a']", "name: a string is needed, not a list"),
        ("count = '5'", 'count: a whole number is needed, not "5"'),
        ("count = 1.5", "count: a whole number is needed, not 1.5"),
        ("count = true", "count: a whole number is needed, not true"),
        ("few = 4", "few: 4 is not in the range 0<=x<=3"),
        ("time = 'long'", 'time: a number is needed, not "long"'),
        ("time = false", "time: a number is needed, not false"),
        ("size = 1.5", 'size: a string such as "10GiB" or a whole number is needed, not 1.5'),
        ("size = '1XB'", "size: size '1XB': write a number and a unit"),
        ("size = -1", "size: size '-1': write a number and a unit"),
        ("at = 'h:1'", 'at: a list is needed, each a string, not "h:1"'),
        ("at = ['h:1', 2]", "at: a string is needed, not 2"),
        ("at = ['h']", "at: address 'h': write HOST:PORT"),
        ("replica = ['h:1']", "replica: 'h:1': write ID=HOST:PORT"),
        ("path = 5", "path: a string is needed, not 5"),
        ("quick = 1", "quick: true or false is needed, not 1"),
        ("quick = 'yes'", 'quick: true or false is needed, not "yes"'),
        ("once = true", "once: can be given on the command line alone"),
        ("config = 'a'", "config: can be given on the command line alone"),
        ("name = ", "not TOML: Invalid value"),
        ("name = 'a'\nname = 'b'", "not TOML: Cannot overwrite a value"),
    ],
)
def test_what_cannot_be_is_one_line_with_file_and_key(text: str, what: str, tmp_path: Path) -> None:
    result, given = run(tmp_path, text, "--name", "x")
    assert (result.exit_code, given) == (2, {})
    assert result.stderr.startswith(f"test-program: {tmp_path / 'some.toml'}: {what}")
    assert result.stderr.count("\n") == 1


def test_a_key_with_underscores_is_told_how_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text("block_size = 512")
    result = CliRunner().invoke(replica.main, ["--config", str(file)])
    assert (result.exit_code, result.stderr) == (
        2,
        f"pyjiva-replica: {file}: block_size: no such key, write block-size\n",
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "No such file or directory"), (b"\xff", "not TOML"), (b"#" * (2 * MIB), "larger than")],
    ids=["missing", "binary", "large"],
)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes | None, what: str, tmp_path: Path) -> None:
    command, _ = make_command()
    file = tmp_path / "some.toml"
    if content is not None:
        file.write_bytes(content)
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"test-program: {file}: {what}")
    assert result.stderr.count("\n") == 1


# --- the two daemons, and the page about them

COMMANDS = {"pyjiva-controller": controller.main, "pyjiva-replica": replica.main}
#: What does not belong into a file.
NOT_IN_FILES = {"pyjiva-controller": {CONFIG, "new-volume", "stop-with-stdin"}}
NOT_IN_FILES["pyjiva-replica"] = {CONFIG, "stop-with-stdin"}


def example(program: str) -> str:
    """The file that the page gives for a daemon."""
    _, _, rest = PAGE.read_text().partition(f"\n## `{program}`\n")
    found = re.search(r"^```toml\n(.*?)^```$", rest.partition("\n## ")[0], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def parameters(program: str, file: Path) -> dict[str, Any]:
    """What the daemon would be given."""
    context = COMMANDS[program].make_context(program, ["--config", str(file)])
    return context.params


@pytest.mark.parametrize("program", COMMANDS)
def test_the_example_on_the_page_has_every_option_and_is_taken(program: str, tmp_path: Path) -> None:
    text = example(program)
    options = {p.opts[0].removeprefix("--") for p in COMMANDS[program].params}
    assert set(tomllib.loads(text)) == options - NOT_IN_FILES[program]
    file = tmp_path / "example.toml"
    file.write_text(text)
    given = parameters(program, file)
    for name, value in tomllib.loads(text).items():
        found = next(p for p in COMMANDS[program].params if p.opts[0] == f"--{name}").name
        assert given[str(found)] not in (None, (), 0) or value in (False, 0, [])


def test_the_controller_makes_sense_of_its_example(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(example("pyjiva-controller"))
    given = parameters("pyjiva-controller", file)
    tuning, retention = take_tuning(given), take_schedule(given)
    fill, limits = take_fill(given), take_limits(given)
    assert retention is not None
    assert fill is not None
    assert [path and path.name for path in fill.tls_files] == [
        "other-authority.pem",
        "machine-1.crt",
        "machine-1.key",
    ]
    assert (tuning.park_limit_s, retention.every_s, fill.rate, limits.iops) == (
        120.0,
        3600.0,
        50 * MIB,
        5000.0,
    )
    fields = ("chap", "mutual_chap", "discovery_chap", "discovery_mutual_chap")
    secrets = {field: given.pop(field) for field in fields}
    assert all(isinstance(path, Path) for path in secrets.values())
    access = read_access(AccessOptions(initiators=given["initiators"], advertise=given["advertise"]), {})
    assert access.advertised == ("192.0.2.11:3260",)


@pytest.mark.parametrize("program", COMMANDS)
def test_options_that_are_for_one_start_are_refused_in_a_file(program: str, tmp_path: Path) -> None:
    for key in NOT_IN_FILES[program]:
        file = tmp_path / "file.toml"
        file.write_text(f"{key} = true")
        result = CliRunner().invoke(COMMANDS[program], ["--config", str(file)])
        assert (result.exit_code, result.stderr) == (
            2,
            f"{program}: {file}: {key}: {FOR_ONE_START if key == 'new-volume' else ON_COMMAND_LINE}\n",
        )


@pytest.mark.parametrize("program", COMMANDS)
def test_every_option_has_a_variable_but_those_for_one_start(program: str) -> None:
    for option in COMMANDS[program].params:
        name = option.opts[0].removeprefix("--")
        without = name in NOT_IN_FILES[program] - {CONFIG, "new-volume"}
        assert option.envvar == (None if without else variable_of(program, name))


def test_up_tells_its_daemons_everything_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PYJIVA_CONTROLLER_MIN_COPIES", "PYJIVA_REPLICA_SIZE", "PYJIVA_LOG"):
        monkeypatch.setenv(variable, "1")
    passed_on = up.UpVolume._environment_of(up.CONTROLLER)
    assert passed_on["PYJIVA_LOG"] == "1"
    assert not any(map(is_of_a_daemon, passed_on))
