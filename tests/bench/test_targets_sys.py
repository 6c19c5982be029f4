"""The targets: they start, say what their processes are for, and end."""

from pathlib import Path

import pytest

from bench.driver_sys import Driver
from bench.targets_sys import TARGETS, pyjiva_role
from pyjiva.units import MIB
from tests.bench.waiting import is_gone, wait_for

PROCESSES = {
    "tgtd": ["tgtd"],
    "limit": ["limit"],
    "limit-each": ["limit"],
    "local": ["target"],
    "pyjiva-3": ["controller", "replica", "replica", "replica", "supervisor"],
}


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["python", "-m", "pyjiva.cli.controller", "--replica", "1=127.0.0.1:9502"], "controller"),
        (["/usr/bin/python3", "/srv/bin/pyjiva-replica", "--volume", "x"], "replica"),
        (["python", "-m", "pyjiva.cli.main", "up", "--data", "/srv/replica"], "supervisor"),
        ([], "supervisor"),
    ],
)
def test_a_role_is_told_by_the_command_line(arguments: list[str], role: str) -> None:
    assert pyjiva_role(arguments) == role


@pytest.mark.real
@pytest.mark.parametrize("name", PROCESSES)
def test_a_target_takes_io_and_ends_with_all_its_processes(name: str, driver: Driver, tmp_path: Path) -> None:
    kind = TARGETS[name]
    if missing := kind.missing_packages():
        pytest.skip(f"Debian package missing: {', '.join(missing)}")
    with kind.start(tmp_path, 1 * MIB) as target:
        roles = target.roles()
        assert sorted(roles.values()) == PROCESSES[name]
        assert driver.run(target.url, "--fill", "--count", "10")["verified_bytes"] == 10 * 4096
        files = [path for path in target.data.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size >= 1 * MIB for path in files) == kind.copies
    wait_for(lambda: all(is_gone(pid) for pid in roles))
