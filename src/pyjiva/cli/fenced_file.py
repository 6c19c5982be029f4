"""The mark that a controller was fenced, for whoever starts it again without asking why it ended.

A kubelet starts a container again wherever its node is: also on one that is cut off from the API server while
the volume has another controller already.  Without the mark the two would take the volume from each other for
ever.  The file lies where it is gone with the pod (an emptyDir); on plain Linux the service manager keeps it
down (deploy/systemd, RestartPreventExitStatus).
"""

from pathlib import Path

import structlog

from pyjiva.errors import StorageError, StorageFailure

__all__ = ["note_fenced", "was_fenced"]

_log = structlog.get_logger(__name__)


def was_fenced(file: Path) -> bool:
    """Whether a controller with this mark is to keep out."""
    fenced = file.exists()
    if fenced:
        _log.error("keeps-out", reason="another controller has taken the volume over", file=str(file))
    return fenced


def note_fenced(file: Path) -> None:
    """Leave the mark.  Raises StorageError: it cannot be written."""
    try:
        file.touch()
    except OSError as error:
        detail = f"{file}: {error.strerror or error}: the next start will take the volume back"
        raise StorageError(StorageFailure.WRITE_ERROR, detail) from error
