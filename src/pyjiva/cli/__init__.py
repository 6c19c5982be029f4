"""The programs: each wires whole processes together, one file per command."""

import sys

__all__: list[str] = []


def _import_structlog_alone() -> None:
    """Import structlog as where rich is not installed, which it would load into every process: 3 MiB.

    Nothing is lost: its tracebacks, which show local variables, are not used (`daemon`).  What shows tables
    imports rich later.
    """
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # `import rich` is an ImportError, as documented
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


_import_structlog_alone()
