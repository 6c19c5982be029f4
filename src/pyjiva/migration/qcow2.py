"""What the header of a disk image says: raw or qcow2, and whether an image needs other files.  Pure.

Source: QEMU's docs/interop/qcow2.rst, "Header".  Only what decides whether qemu-img may be given the file: a
qcow2 image that names a backing file or an external data file would make it read any file of this machine.
"""

import struct
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["HEADER_BYTES", "Qcow2Header", "parse_qcow2_header"]

HEADER_BYTES: Final = 104
_MAGIC: Final = b"QFI\xfb"
_VERSIONS: Final = (2, 3)
# magic, version, backing_file_offset, backing_file_size, cluster_bits, size, crypt_method
_HEADER: Final = struct.Struct(">4sIQIIQI")
_FEATURES: Final = struct.Struct(">Q")
_FEATURES_OFFSET: Final = 72  # incompatible_features, version 3 only
_EXTERNAL_DATA_FILE: Final = 1 << 2


@attrs.frozen
class Qcow2Header:
    """A qcow2 image that stands alone."""

    size_bytes: int
    """What a guest sees."""


def parse_qcow2_header(start: bytes) -> Qcow2Header | None:
    """The header in the first HEADER_BYTES of a file; None: it is not qcow2, so it is raw.

    Raises ConfigError: the image is encrypted, or needs other files.
    """
    if not start.startswith(_MAGIC):
        return None
    if len(start) < HEADER_BYTES:
        raise ConfigError("the qcow2 image ends in its header")
    _, version, backing_offset, _, _, size_bytes, crypt_method = _HEADER.unpack_from(start)
    if version not in _VERSIONS:
        raise ConfigError(f"the qcow2 image has version {version}: 2 and 3 are known")
    if backing_offset:
        raise ConfigError("the qcow2 image has a backing file of its own: make one image of both first")
    if crypt_method:
        raise ConfigError("the qcow2 image is encrypted")
    if version == 3 and _FEATURES.unpack_from(start, _FEATURES_OFFSET)[0] & _EXTERNAL_DATA_FILE:
        raise ConfigError("the qcow2 image keeps its data in another file: make one image of both first")
    return Qcow2Header(size_bytes)
