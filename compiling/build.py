"""Compiles the hot modules: sources in, sources written out and shared objects out.

mypyc takes the modules together, so that they call each other without a look-up.  It makes one shared object
that holds their code, and a small one for each module, which Python finds in its place.  One module is C
(`native`), and is there in a compiled build alone.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from compiling.modules import COMPILED
from compiling.plain_classes import written_out

__all__ = ["CompilingFailed", "build"]

_NATIVE: Final = Path(__file__).with_name("native")
_SETUP: Final = """\
from mypyc.build import mypycify
from setuptools import Extension, setup

setup(
    name="compiled",
    packages=[],
    ext_modules=[
        *mypycify(
            ["--ignore-missing-imports", *{paths!r}], opt_level="2", debug_level="0", group_name="pyjiva"
        ),
        Extension(
            "pyjiva.native",
            {native!r},
            extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden"],
        ),
    ],
)
"""


class CompilingFailed(Exception):
    """Says what the compiler said."""


def build(sources: Path, into: Path, *, prefix: Sequence[str] = ()) -> Iterator[Path]:
    """Compile the package `pyjiva` in `sources` within the empty directory `into`; `prefix`: nice(1), say.

    Gives the paths, relative to `into`, of what is to take the place of the package's own files.  Raises
    CompilingFailed, and NotPlain.
    """
    shutil.copytree(sources / "pyjiva", into / "pyjiva", ignore=shutil.ignore_patterns("__pycache__"))
    paths = {module: Path(f"{module.replace('.', '/')}.py") for module in COMPILED}
    texts = written_out({module: (into / path).read_text() for module, path in paths.items()})
    for module, text in texts.items():
        (into / paths[module]).write_text(text)
    shutil.copytree(_NATIVE, into / _NATIVE.name)
    native = sorted(str(path.relative_to(into)) for path in (into / _NATIVE.name).glob("*.c"))
    (into / "setup.py").write_text(_SETUP.format(paths=[str(path) for path in paths.values()], native=native))
    command = [*prefix, sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilingFailed(f"{done.stdout}{done.stderr}")
    yield from paths.values()
    for path in sorted(into.rglob("*.so")):
        if "build" not in path.relative_to(into).parts:
            yield path.relative_to(into)
