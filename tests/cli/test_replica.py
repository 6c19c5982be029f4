"""What `pyjiva-replica` does before it serves."""

import subprocess
import sys
from pathlib import Path

from pyjiva.cli.replica import EXIT_BROKEN


def test_a_replica_may_keep_as_many_files_open_as_the_system_allows() -> None:
    """Each snapshot takes three, and a shell's soft limit is 1024."""
    code = "import resource as r; from pyjiva.cli.replica import _allow_many_files as allow; allow(); "
    code += "print(*r.getrlimit(r.RLIMIT_NOFILE))"
    soft = ["bash", "-c", f'ulimit -Sn 128; exec {sys.executable} -c "$1"', "bash", code]
    printed = subprocess.run(soft, capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == printed[1] != "128"


def test_it_takes_more_than_the_hard_limit_where_it_is_let() -> None:
    """As root, if its container lets root."""
    code = "import resource as r; from pyjiva.cli.replica import OPEN_FILES, _allow_many_files as allow; "
    code += "r.setrlimit(r.RLIMIT_NOFILE, (512, 1024)); allow(); "
    code += "print(*r.getrlimit(r.RLIMIT_NOFILE), OPEN_FILES)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    soft, hard, wanted = map(int, ran.stdout.split())
    assert soft == hard
    assert hard in (1024, wanted)


BROKEN = """
import sys
from pyjiva.cli import replica
from pyjiva.errors import StorageError, StorageFailure
opened = replica.Store.open_or_create
def open_and_break(*args, **options):
    store = opened(*args, **options)
    store._break(StorageError(StorageFailure.WRITE_ERROR, "fdatasync: Input/output error"))
    return store
replica.Store.open_or_create = open_and_break
replica.main(sys.argv[1:])
"""


def test_one_whose_disk_failed_a_flush_ends_so_that_it_is_started_again(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("00" * 32)
    arguments = ["--volume", "demo", "--volume-id", "0" * 32, "--replica-id", "1", "--size", "1MiB"]
    arguments += ["--directory", str(tmp_path / "r"), "--key-file", str(key)]
    arguments += ["--data", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    command = [sys.executable, "-c", BROKEN, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_BROKEN
    assert "fdatasync: Input/output error" in ended.stderr
