"""Has hatchling make a wheel with compiled modules, where the environment says PYJIVA_COMPILE=1.

Without it the wheel holds the sources alone and suits every machine, and nothing is asked of who builds it.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompilingHook(BuildHookInterface[Any]):
    """See the module."""

    _directory: tempfile.TemporaryDirectory[str] | None = None

    def _is_wanted(self) -> bool:
        return os.environ.get("PYJIVA_COMPILE", "") not in ("", "0") and self.target_name == "wheel"

    def dependencies(self) -> list[str]:
        """What compiling needs: the compiler, and the libraries for their types."""
        if not self._is_wanted():
            return []
        return ["mypy", "setuptools", *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Part of BuildHookInterface.  An editable install runs the sources as they stand."""
        if not self._is_wanted() or version == "editable":
            return
        sys.path.insert(0, self.root)  # hatchling loads this file alone
        from compiling.build import build  # needs what `dependencies` asks for

        self._directory = tempfile.TemporaryDirectory(prefix="pyjiva-compiling-")
        into = Path(self._directory.name)
        for path in build(Path(self.root) / "src", into):
            build_data["force_include"][str(into / path)] = str(path)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Part of BuildHookInterface."""
        if self._directory is not None:
            self._directory.cleanup()
