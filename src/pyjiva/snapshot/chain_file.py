"""`pyjiva-chain.json` as bytes: one JSON object, as that of `snapshot.state`, with format, content, checksum.
Pure.
"""

import json
import operator
from typing import Any, Final

import attrs
import xxhash

from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import CHAIN_FILE, Chain, Layer

__all__ = ["decode_chain", "encode_chain"]

FORMAT_VERSION: Final = 2
_FORMAT_WITHOUT_REOPENED: Final = 1
"""What is written as long as an older pyjiva can read it."""
_LAYER_FIELDS: Final = tuple(field.name for field in attrs.fields(Layer))
_layer_values: Final = operator.attrgetter(*_LAYER_FIELDS)


def encode_chain(chain: Chain) -> bytes:
    """`chain` as the content of its file."""
    fields = attrs.asdict(chain, recurse=False, filter=lambda field, _: not field.name.startswith("_"))
    # Not by `attrs.asdict`, which takes longer: there may be thousands of layers.
    fields["layers"] = layers = [
        dict(zip(_LAYER_FIELDS, _layer_values(layer), strict=True)) for layer in chain.layers
    ]
    version = FORMAT_VERSION
    if not chain.reopened:
        version = _FORMAT_WITHOUT_REOPENED
        for layer in layers:
            del layer["reopened"]
    content: dict[str, Any] = {"format": version, "chain": fields}
    content["checksum"] = _checksum(content)
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def decode_chain(content: bytes) -> Chain:
    """What the file says.  Raises ConfigError: it is damaged, or from a newer version."""
    try:
        fields = json.loads(content)
        version = fields["format"]
        if type(version) is int and version > FORMAT_VERSION:
            raise ConfigError(
                f"{CHAIN_FILE} has format {version}, this pyjiva reads {FORMAT_VERSION}: take the newer one"
            )
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise ValueError("its checksum does not match")
        chain = fields["chain"]
        chain["layers"] = tuple(Layer(**layer) for layer in chain["layers"])
        chain["renames"] = tuple((old, new) for old, new in chain["renames"])
        return Chain(**chain)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{CHAIN_FILE} is damaged ({error}): move the directory away, the replica is rebuilt"
        ) from error


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(canonical.encode())
