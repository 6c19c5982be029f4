"""Loads structlog as where rich is not installed: else it loads rich, which takes 3 MiB of every process.

For a program of which there are many on one machine, before anything else that imports structlog.  Nothing is
lost: rich's tracebacks, which show local variables, are not used (`daemon`), and what shows tables can still
import rich.
"""

import sys

__all__: list[str] = []

if "rich" not in sys.modules and "structlog" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # `import rich` is an ImportError, as documented
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
