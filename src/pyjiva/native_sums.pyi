"""In a compiled build alone, made of `compiling/native`: see docs/decisions/0012-compiled.md."""

from pyjiva.buffers import Buffer

def sums_of(data: Buffer, /) -> bytes:
    """As `block_sums.sums_of`."""
