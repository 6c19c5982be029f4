"""Options for who may use the volume: files, environment, and what is handed on."""

from pathlib import Path
from typing import Any

import attrs
import click.testing
import pytest
import structlog

from pyjiva.cli.access import FILES, Access, AccessOptions, access_options, read_access
from pyjiva.cli.daemon import Address
from pyjiva.errors import ConfigError

SECRET, OWN = "initiator-secret", "target-own-secret"


def file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def read(options: AccessOptions, **environment: str) -> Access:
    return read_access(options, environment, warn=True)


def test_files_give_the_secrets_of_both_types_of_session(tmp_path: Path) -> None:
    incoming = file(tmp_path / "a", f"alice {SECRET}\nbob bobs-own-secret\n")
    own, other = file(tmp_path / "b", f"target {OWN}\n"), file(tmp_path / "c", "carol discovery-secret\n")
    with structlog.testing.capture_logs() as lines:
        access = read(AccessOptions(chap=incoming, mutual_chap=own, discovery_chap=other))
    assert lines == []
    assert access.chap is not None
    assert access.chap.incoming == {"alice": SECRET.encode(), "bob": b"bobs-own-secret"}
    assert access.chap.own is not None
    assert (access.chap.own.name, access.chap.own.secret) == ("target", OWN.encode())
    assert access.discovery_chap is not None
    assert access.discovery_chap.own is None
    assert SECRET not in repr(access)
    assert OWN not in repr(access)


def test_environment_gives_the_same() -> None:
    access = read(AccessOptions(), PYJIVA_CHAP=f"alice {SECRET}", PYJIVA_MUTUAL_CHAP=f"target {OWN}")
    assert access.chap is not None
    assert access.chap.incoming == {"alice": SECRET.encode()}
    assert access.chap.own is not None
    assert access.discovery_chap is None


def test_nothing_asked_for_means_everybody() -> None:
    access = read(AccessOptions())
    assert (access.chap, access.discovery_chap, access.advertised) == (None, None, ())
    assert access.initiators.allow("anybody", "10.0.0.1")


def test_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        read(AccessOptions(chap=file(tmp_path / "chap", f"alice {SECRET}", 0o640)))
    assert [(line["event"], line["file"]) for line in lines] == [
        ("secrets-readable-by-others", str(tmp_path / "chap"))
    ]
    assert SECRET not in str(lines)


WRONG: list[tuple[dict[str, str], dict[str, str], str]] = [
    # files, environment, message
    ({"chap": ""}, {}, "no line with a name and a secret"),
    ({"chap": f"alice {SECRET}"}, {"PYJIVA_CHAP": f"alice {SECRET}"}, "give one of them"),
    ({"mutual_chap": f"target {OWN}"}, {}, "mutual CHAP needs --chap-file too"),
    ({"discovery_mutual_chap": f"target {OWN}"}, {}, "mutual CHAP needs --discovery-chap-file too"),
    ({"chap": f"alice {SECRET}", "mutual_chap": f"a {OWN}\nb {OWN}"}, {}, "one name and one secret"),
    ({"chap": f"alice {SECRET}", "mutual_chap": f"target {SECRET}"}, {}, "must differ"),
    ({"chap": "alice\udcff secret-secret"}, {}, "not UTF-8"),
    ({"chap": "x" * ((1 << 20) + 1)}, {}, "larger than"),
]


@pytest.mark.parametrize(("files", "environment", "says"), WRONG, ids=[case[2] for case in WRONG])
def test_what_cannot_be_is_said_without_a_secret(
    files: dict[str, str], environment: dict[str, str], says: str, tmp_path: Path
) -> None:
    options = AccessOptions()
    for field, text in files.items():
        path = tmp_path / field
        path.write_bytes(text.encode(errors="surrogateescape"))
        options = attrs.evolve(options, **{field: path})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        read(options, **environment)
    assert says in str(error.value)
    assert not any(secret in str(error.value) for secret in (SECRET, OWN, "secret-secret"))


def test_a_directory_is_no_file_of_secrets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read(AccessOptions(chap=tmp_path))


def test_the_controller_is_told_the_same_by_name(tmp_path: Path) -> None:
    """What `pyjiva up` hands on is understood, and holds files' names only."""
    files: dict[str, Any] = {field: file(tmp_path / field, f"name {SECRET}") for field in FILES}
    options = AccessOptions(
        **files,
        initiators=("iqn.2004-10.com.example:*", "10.0.0.0/8"),
        advertise=(Address("storage.example", 3260), Address("fd00::1", 3260)),
        read_only=True,
    )
    arguments = options.arguments()
    assert not any(SECRET in argument for argument in arguments)
    understood = []

    @click.command()
    @access_options
    def command(**access: object) -> None:
        understood.append(AccessOptions(**access))  # type: ignore[arg-type]

    result = click.testing.CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert understood == [options]
