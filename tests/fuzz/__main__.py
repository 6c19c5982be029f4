"""`python -m tests.fuzz`: every target for FUZZ_SECONDS, guided by coverage if atheris is there.

What reaches new code is kept in .cache/fuzz/TARGET, what fails in a file `crash-...` beside it; the corpus
that the fast suite replays is tests/fuzz/corpus/TARGET.  Without atheris hypothesis draws the inputs,
unguided, and nothing but a failure is kept.

    python -m tests.fuzz                            every target
    python -m tests.fuzz login values               some
    python -m tests.fuzz --replay login FILE...     inputs again
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["main"]

TOP: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
KEPT: Final = TOP / ".cache" / "fuzz"
SECONDS: Final = int(os.environ.get("FUZZ_SECONDS", "60"))
INPUT_BYTES_MAX: Final = 4096
MEMORY_MIB_MAX: Final = 2048
TARGET_NAMES: Final = ("login", "connection", "device-server", "values")
_ONE: Final = "--one"  # what a process that fuzzes one target is started with


def main(arguments: list[str]) -> int:
    """The exit code: 0 if nothing failed."""
    if arguments[:1] == [_ONE]:
        return _fuzz_here(arguments[1])
    if arguments[:1] == ["--replay"]:
        return _replay(arguments[1], arguments[2:])
    failed = [name for name in arguments or TARGET_NAMES if not _fuzz(name)]
    print(f"fuzz: {', '.join(failed)} failed, see {KEPT}" if failed else "fuzz: nothing found")
    return 1 if failed else 0


def _fuzz(name: str) -> bool:
    """Fuzz one target in a process of its own: a fuzzer ends its process."""
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {name} for {SECONDS} s", flush=True)
    return (
        subprocess.run([sys.executable, "-m", "tests.fuzz", _ONE, name], cwd=TOP, check=False).returncode == 0
    )


def _replay(name: str, files: list[str]) -> int:
    from tests.fuzz.harness import TARGETS

    for file in files:
        TARGETS[name](Path(file).read_bytes())
    return 0


def _fuzz_here(name: str) -> int:
    return _with_atheris(name) if importlib.util.find_spec("atheris") else _with_hypothesis(name)


def _with_atheris(name: str) -> int:
    import atheris

    with atheris.instrument_imports(include=["pyjiva"]):
        from tests.fuzz.harness import TARGETS
    options = [
        *(f"-max_total_time={SECONDS}", f"-max_len={INPUT_BYTES_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}"),
        *(f"-artifact_prefix={KEPT / name}{os.sep}", "-timeout=10", "-print_final_stats=1", "-verbosity=0"),
    ]
    # The first directory takes what is new, the second is read.
    atheris.Setup([sys.argv[0], *options, str(KEPT / name), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()
    return 0


def _with_hypothesis(name: str) -> int:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from tests.fuzz.harness import TARGETS

    print("fuzz: atheris is not installed (pip install pyjiva[fuzz]): inputs are drawn without guidance")
    failing: list[bytes] = []

    @settings(
        max_examples=1000, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.binary(max_size=INPUT_BYTES_MAX))
    def run(data: bytes) -> None:
        failing[:] = [data]
        TARGETS[name](data)

    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            run()
        except Exception:
            crash = KEPT / name / f"crash-{hashlib.sha1(failing[0]).hexdigest()}"
            crash.write_bytes(failing[0])
            print(f"fuzz: {crash}")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
