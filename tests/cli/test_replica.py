"""What `pyjiva-replica` does before it serves."""

import subprocess
import sys


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
