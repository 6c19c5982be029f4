"""A volume of one machine: what is kept of it, and the command that runs it.  Pure.

A record is all that is durable besides the volume's own folder: what is wanted of it.  A JSON object:
`format` (FORMAT_VERSION), then the fields of LocalRecord, the policy as in a JivaVolume.
"""

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver.backend import CloneSource
from pyjiva.maya.policy.fault import PoliciesRefused, PolicyFault
from pyjiva.maya.policy.table import IN_VOLUME, POLICIES, POOL, WITNESS
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.volume.jiva_volume import policy_of, policy_to_json

__all__ = ["Files", "LocalRecord", "LocalState", "check_policy", "up_arguments"]

FORMAT_VERSION: Final = 1
LOOPBACK: Final = "127.0.0.1"


class LocalState(enum.Enum):
    """What is wanted."""

    WANTED = "wanted"
    DELETING = "deleting"  # its process, its data, its secrets and then this record are to go


@attrs.frozen(kw_only=True)
class LocalRecord:
    """One volume."""

    name: str
    namespace: str
    uid: str
    """32 hexadecimal digits; another one for each volume that ever had the name."""
    created_bytes: int
    """With what it was made: `pyjiva up` goes on to be told that."""
    capacity_bytes: int
    """What it has, as far as is known."""
    policy: VolumePolicy
    portal_port: int
    api_port: int
    storage_class: str = ""
    claim: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    source: CloneSource | None = None
    source_port: int = 0
    """Of the source's API."""
    state: LocalState = LocalState.WANTED
    filled: bool = False
    """Whether all of `source` is there."""

    def needs_source(self, volume: str, snapshot: str = "") -> bool:
        """Whether it is not complete without that volume, or without that snapshot of it."""
        return (
            self.source is not None
            and self.source.volume == volume
            and snapshot in ("", self.source.snapshot)
            and not self.filled
            and self.state is LocalState.WANTED
        )

    def to_json(self) -> bytes:
        """What `from_json` reads."""
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(LocalRecord)}
        fields["policy"] = policy_to_json(self.policy)
        fields["state"] = self.state.value
        fields["source"] = None if self.source is None else [self.source.volume, self.source.snapshot]
        return json.dumps({"format": FORMAT_VERSION, **fields}, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> "LocalRecord":
        """Raises ConfigError: damaged, or of another format."""
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields.pop("format")
            if version != FORMAT_VERSION:
                raise ConfigError(f"format {version!r}, this pyjiva knows {FORMAT_VERSION}")
            fields["policy"] = policy_of(fields["policy"])
            fields["state"] = LocalState(fields["state"])
            source = fields["source"]
            fields["source"] = None if source is None else CloneSource(*source)
            record = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError("damaged") from error
        numbers = (record.created_bytes, record.capacity_bytes, record.portal_port, record.api_port)
        if any(type(number) is not int or number < 1 for number in numbers):
            raise ConfigError("damaged")
        return record


def check_policy(policy: VolumePolicy, defaults: VolumePolicy, pools: Mapping[str, str], source: str) -> None:
    """Raises PoliciesRefused: something of it means nothing on one machine, or is no pool of it."""
    faults = []
    if policy.witness_in_volume:
        expected = "true or false: without Kubernetes there is no JivaVolume to keep its vote in"
        faults.append(PolicyFault(source, WITNESS, IN_VOLUME, expected))
    known = {each.field.partition(".")[0] for each in POLICIES if each.on_one_machine}
    for field in attrs.fields(VolumePolicy):
        changed = getattr(policy, field.name) != getattr(defaults, field.name)
        if changed and field.name not in known and field.name != "witness_in_volume":
            expected = "to be left out: it means nothing without Kubernetes"
            faults.append(PolicyFault(source, _policy_name(field.name), "", expected))
    if policy.pool_path not in pools.values():
        expected = f"a pool that Maya was started with ({', '.join(sorted(pools))})"
        faults.append(PolicyFault(source, POOL, policy.pool_path, expected))
    if faults:
        raise PoliciesRefused(faults)


def _policy_name(field: str) -> str:
    """As it stands in the list; of a record in the policy: both names."""
    names = [policy.name for policy in POLICIES if policy.field.partition(".")[0] == field]
    return ", ".join(names) or {
        "replica_anti_affinity_group": "label openebs.io/replica-anti-affinity",
        "target_affinity": "labels openebs.io/target-affinity, openebs.io/sts-target-affinity",
    }.get(field, field)


@attrs.frozen
class Files:
    """Where secrets of volumes are."""

    token: str
    chap: str
    source_token: str = ""


def up_arguments(record: LocalRecord, files: Files, portal_host: str) -> Sequence[str]:
    """What `pyjiva up` is told."""
    policy = record.policy
    host = f"[{portal_host}]" if ":" in portal_host else portal_host
    arguments = [
        *("up", record.name, "--data", policy.pool_path, "--size", str(record.created_bytes)),
        *("--replicas", str(policy.replica_count), "--block-size", str(policy.block_size_bytes)),
        *("--portal", f"{host}:{record.portal_port}", "--api", f"{LOOPBACK}:{record.api_port}"),
        *("--api-token-file", files.token, "--stop-with-stdin"),
    ]
    arguments += ["--witness"] if policy.witness else []
    arguments += ["--chap-file", files.chap] if policy.chap else []
    arguments += [] if policy.park_limit_s is None else ["--park-limit", f"{policy.park_limit_s:g}"]
    if record.source is not None:
        url = f"http://{LOOPBACK}:{record.source_port}/v1/snapshots/{record.source.snapshot}"
        arguments += ["--fill-from", url, "--fill-token-file", files.source_token]
    return arguments
