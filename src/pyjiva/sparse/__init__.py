"""Sparse files and the directory they lie in: what a replica's disk can do, and nothing about volumes."""

from pyjiva.buffers import Buffer
from pyjiva.sparse.checked_file_sys import SUM_BLOCK_BYTES, CheckedFile, extent_under_way, sums_size_bytes
from pyjiva.sparse.directory_sys import (
    TEMPORARY_SUFFIX,
    Directory,
    FileDirectory,
    open_directory,
    prepare_file,
    put_in_place,
    read_file,
    replace_file,
)
from pyjiva.sparse.file_sys import DataFile, SparseFile, list_names, storage_error
from pyjiva.sparse.readable_sys import ReadableDirectory, ReadableFile, ReadOnlyDirectory, open_read_only
from pyjiva.sparse.slot_sys import SharedSlots, Slot, Slots

__all__ = [
    "SUM_BLOCK_BYTES",
    "TEMPORARY_SUFFIX",
    "Buffer",
    "CheckedFile",
    "DataFile",
    "Directory",
    "FileDirectory",
    "ReadOnlyDirectory",
    "ReadableDirectory",
    "ReadableFile",
    "SharedSlots",
    "Slot",
    "Slots",
    "SparseFile",
    "extent_under_way",
    "list_names",
    "open_directory",
    "open_read_only",
    "prepare_file",
    "put_in_place",
    "read_file",
    "replace_file",
    "storage_error",
    "sums_size_bytes",
]
