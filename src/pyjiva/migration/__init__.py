"""Directories of Longhorn and Jiva: read, served, made pyjiva's; and pyjiva's as images and as Longhorn's."""

from pyjiva.migration.describe import describe
from pyjiva.migration.export_sys import CheckedReader, write_image
from pyjiva.migration.foreign import (
    MARKER,
    DirectoryFacts,
    Finding,
    ForeignLayer,
    ForeignReplica,
    Hinders,
)
from pyjiva.migration.foreign_sys import ReadOnlyDirectory, look, open_image_file, open_read_only
from pyjiva.migration.image_device_io import ImageDevice
from pyjiva.migration.image_sys import LayeredImage, open_image
from pyjiva.migration.longhorn_sys import LonghornExport, exported_chain
from pyjiva.migration.qcow2 import HEADER_BYTES, parse_qcow2_header
from pyjiva.migration.qemu_img_sys import convert
from pyjiva.migration.replica_sys import open_replica
from pyjiva.migration.upgrade_sys import Upgrade, finish, first_state

__all__ = [
    "HEADER_BYTES",
    "MARKER",
    "CheckedReader",
    "DirectoryFacts",
    "Finding",
    "ForeignLayer",
    "ForeignReplica",
    "Hinders",
    "ImageDevice",
    "LayeredImage",
    "LonghornExport",
    "ReadOnlyDirectory",
    "Upgrade",
    "convert",
    "describe",
    "exported_chain",
    "finish",
    "first_state",
    "look",
    "open_image",
    "open_image_file",
    "open_read_only",
    "open_replica",
    "parse_qcow2_header",
    "write_image",
]
