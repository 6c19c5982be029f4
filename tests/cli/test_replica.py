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
