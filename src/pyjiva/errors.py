"""Every kind of error that crosses a package border, and what the receiver is to do about it.

Five kinds: we misused a machine (`LocalProtocolError`: a bug of ours), the peer did (`RemoteProtocolError`:
close the connection, one log line), the storage below cannot do what was asked (`StorageError`: an answer
to the initiator), a store of backups does not give what it should (`BackupError`: one line and exit code 1),
the operator asked for something impossible (`ConfigError`: one line on standard error
and exit code 2).
"""

import enum

__all__ = [
    "BackupError",
    "ConfigError",
    "LocalProtocolError",
    "PyjivaError",
    "RemoteProtocolError",
    "StorageError",
    "StorageFailure",
]


class PyjivaError(Exception):
    """Base of everything that pyjiva raises on purpose."""


class LocalProtocolError(PyjivaError):
    """A machine was given an event that cannot happen in its present state: a bug of ours."""


class RemoteProtocolError(PyjivaError):
    """The peer broke its protocol: the connection is closed after at most one answer."""


class ConfigError(PyjivaError):
    """The operator asked for something that cannot be: one clear line, exit code 2, nothing changed."""


class BackupError(PyjivaError):
    """A store of backups cannot be reached, or what it holds is missing or not what was written there."""


class StorageFailure(enum.Enum):
    """Why a block device could not do what was asked.  `scsi` turns each into sense data (SPC-4 table 43,
    SBC-3).
    """

    OUT_OF_RANGE = "out-of-range"
    """Beyond the end of the device: ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE."""
    NO_SPACE = "no-space"
    """No room below: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT."""
    READ_ERROR = "read-error"
    """The medium lost data: MEDIUM ERROR, UNRECOVERED READ ERROR."""
    BAD_CHECKSUM = "bad-checksum"
    """The medium gives something else than what was written: as READ_ERROR, if no other copy is good."""
    WRITE_ERROR = "write-error"
    """The medium refused data: MEDIUM ERROR, WRITE ERROR."""
    NOT_READY = "not-ready"
    """Cannot answer now, may be asked again: NOT READY, LOGICAL UNIT IS IN PROCESS OF BECOMING READY."""
    NOT_SUPPORTED = "not-supported"
    """This device has no such verb: ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE."""


class StorageError(PyjivaError):
    """A block device or a replica directory cannot do what was asked; `failure` says what to answer."""

    def __init__(self, failure: StorageFailure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
