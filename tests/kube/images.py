"""What images hold, as there are none: programs of this machine, and of a virtual environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["HOST", "IMAGES", "Image", "find_image", "name_of", "pyjiva_image"]

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Image:
    """The root of a container is this machine's, read and written as a copy; an image says what differs."""

    path: tuple[str, ...] = ()
    """Folders where commands are looked for first."""
    needs: tuple[Path, ...] = ()
    """Folders that must be there, even below those which a container has for itself, such as /tmp."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    entrypoint: tuple[str, ...] = ()
    user: int = 0

    def variables(self) -> dict[str, str]:
        """The environment before the pod's."""
        return {"PATH": ":".join([*self.path, SYSTEM_PATH]), "HOME": "/root", **self.environment}


HOST: Final = Image()
#: Name → image, for every registry and tag.
IMAGES: Final[Mapping[str, Image]] = {"busybox": HOST, "debian": HOST, "python": HOST}


def pyjiva_image(environment: Path, source: Path | None = None, user: int = 0) -> Image:
    """The programs of a virtual environment; `source`: a checkout's `src` that comes before what it holds."""
    needs = [environment, Path(sys.base_prefix), *([source] if source else [])]
    # An editable installation is but a pointer to a checkout.
    needs += [Path(line) for file in environment.glob("lib/*/site-packages/*.pth") for line in _folders(file)]
    variables = {"PYTHONPATH": str(source)} if source else {}
    return Image((str(environment / "bin"),), tuple(dict.fromkeys(needs)), variables, user=user)


def _folders(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith("/") and os.path.isdir(line)]


def find_image(images: Mapping[str, Image], reference: str) -> Image | None:
    """The image that `registry/repository/name:tag@digest` means; None: nobody has it."""
    return images.get(name_of(reference))


def name_of(reference: str) -> str:
    """The name alone."""
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
