"""What compiling takes, and whether it is here."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

__all__ = ["missing_to_compile"]


def missing_to_compile() -> str:
    """Why nothing can be compiled here; empty if it can."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    cc = shutil.which("cc")
    if cc is not None and headers.exists():
        wanted = [cc, "-E", "-include", "xxhash.h", "-x", "c", "/dev/null"]
        if subprocess.run(wanted, capture_output=True, check=False).returncode == 0:
            return ""
    packages = "gcc, libc6-dev, python3-dev, libxxhash-dev"
    return f"nothing can be compiled: no C compiler, no {headers.name} or no xxhash.h; on Debian: {packages}"
