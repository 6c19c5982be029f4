"""From a claim and its StorageClass to the policy of a volume.  Pure.

What the claim says goes before what the StorageClass says, and that before Maya's defaults, name by name.
Nothing is passed over: a name that is not known and a value that makes no sense are refused, all at once,
with what to write instead (`maya pkg/volume/volume_template_engine.go` took everything).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.maya.policy import readers
from pyjiva.maya.policy.fault import PoliciesRefused, PolicyFault, suggestion
from pyjiva.maya.policy.marks import CAS_TYPE, CONFIG, Origin, check_marks, target_affinity
from pyjiva.maya.policy.readers import Reader
from pyjiva.maya.policy.table import NOT_TAKEN, POLICIES, POOL, Form, Policy, Several
from pyjiva.maya.policy.volume_policy import Resources, VolumePolicy
from pyjiva.maya.yaml_text import read_strings

__all__ = ["DEFAULT_POOL", "JIVA", "Decided", "defaults_of", "read_policies"]

JIVA: Final = "jiva"
DEFAULT_POOL: Final = "default"
NONE: Final = "none"
REPLICA_GROUP: Final = "openebs.io/replica-anti-affinity"
_BY_NAME: Final = {policy.name: policy for policy in POLICIES}
_FORMS: Final = ("value", "enabled", "data", "list")
#: What "none" is where a policy is a collection; elsewhere it is Maya's default.
_NOTHING: Final[dict[Reader, Any]] = {
    readers.tolerations: (),
    readers.requirements: (),
    readers.selector: {},
    readers.resources: {},
}

Fault = Callable[[str, str, str], None]
"""Told the policy's name, what was found, and what is expected."""


@attrs.frozen
class Decided:
    """What became of it."""

    policy: VolumePolicy
    notes: tuple[str, ...] = ()
    """What can be so, but is seldom meant."""


def read_policies(
    claim: Origin | None,
    storage_class: Origin | None,
    *,
    defaults: VolumePolicy,
    pools: Mapping[str, str] | None = None,
) -> Decided:
    """The policy of a volume for this claim.

    `pools`: name to path; DEFAULT_POOL, unless it is among them, is the path of `defaults`.
    Raises PoliciesRefused, with everything that is wrong.
    """
    faults: list[PolicyFault] = []
    places = {DEFAULT_POOL: defaults.pool_path, **(pools or {})}
    values: dict[str, Any] = {}
    for origin in (storage_class, claim):
        if origin is None:
            continue
        fault = _fault_of(origin.title, faults)
        check_marks(origin, fault)
        cas_type = origin.annotations.get(CAS_TYPE, JIVA)
        if cas_type != JIVA:
            fault(CAS_TYPE, cas_type, f"{JIVA}: this Maya makes no volumes of another kind")
        values |= _read_config(origin, places, fault)
    changes = {path: value for path, value in values.items() if path}
    for origin in (storage_class, claim):
        if origin is not None:
            fault = _fault_of(origin.title, faults)
            changes |= target_affinity(origin, claim, fault)
            if (group := origin.labels.get(REPLICA_GROUP)) is not None:
                changes["replica_anti_affinity_group"] = group
    policy = _changed(defaults, changes)
    _check_resources(policy, _title(claim, storage_class), faults)
    if faults:
        raise PoliciesRefused(faults)
    return Decided(policy, tuple(_notes(policy)))


def defaults_of(environment: Mapping[str, str], base: VolumePolicy | None = None) -> VolumePolicy:
    """`base` with what the environment says, under OpenEBS' names; an empty variable says nothing.

    Raises PoliciesRefused.
    """
    faults: list[PolicyFault] = []
    changes: dict[str, Any] = {}
    fault = _fault_of("the environment", faults)
    for policy in POLICIES:
        if policy.environment and (text := environment.get(policy.environment, "").strip()):
            variable = policy.environment
            read = readers.named({}) if policy.name == POOL else policy.read
            changes[policy.field] = read(text, _wrong_of(variable, fault))
    if faults:
        raise PoliciesRefused(faults)
    return _changed(base or VolumePolicy(), changes)


def _fault_of(source: str, faults: list[PolicyFault]) -> Fault:
    return lambda policy, found, expected: faults.append(PolicyFault(source, policy, found, expected))


def _wrong_of(policy: str, fault: Fault) -> readers.Wrong:
    return lambda found, expected: fault(policy, found, expected)


def _read_config(origin: Origin, places: Mapping[str, str], fault: Fault) -> dict[str, Any]:
    """Fields of VolumePolicy, with dots, to values; None: Maya's default."""
    text = origin.annotations.get(CONFIG, "").strip()
    if not text:
        return {}
    try:
        entries = read_strings(text)
    except ConfigError as error:
        fault(CONFIG, "", f"a YAML list of `- name:` with `value:` or `enabled:`; it is {error}")
        return {}
    if not isinstance(entries, list):
        fault(CONFIG, text, "a YAML list of `- name:` with `value:` or `enabled:`")
        return {}
    seen: set[str] = set()
    values: dict[str, Any] = {}
    for number, entry in enumerate(entries, 1):
        found = _read_entry(entry, number, fault)
        if found is None:
            continue
        policy, value = found
        if policy.name in seen:
            fault(policy.name, "", "stands in the list twice")
        seen.add(policy.name)
        values[policy.field] = _read_value(policy, value, places, fault)
    return values


def _read_entry(entry: object, number: int, fault: Fault) -> tuple[Policy, str] | None:
    """The policy and its text; None: there is none, and it was said why."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        fault(CONFIG, str(entry), f"entry {number} to have a `name:` with a policy's name, and a value")
        return None
    name = entry["name"]
    policy = _BY_NAME.get(name)
    if policy is None:
        if name in NOT_TAKEN:
            fault(name, "", f"is not taken: {NOT_TAKEN[name]}")
        else:
            fault(name, "", f"is no policy's name{suggestion(name, _BY_NAME)}")
        return None
    given = [key for key in entry if key != "name"]
    form = policy.form.value
    for key in given:
        if key not in _FORMS:
            fault(name, key, f"`{form}:`{suggestion(key, [form])}")
    forms = [key for key in given if key in _FORMS]
    if forms != [form]:
        if forms or not given:
            shown = ", ".join(f"{key}:" for key in forms) or "no value"
            fault(name, shown, f"`{form}:` and {policy.may_be}")
        return None
    value = entry[form]
    if not isinstance(value, str):
        kind = "a list" if isinstance(value, list) else "a mapping"
        fault(name, kind, f"a text: write `{form}: |-` above it, and {policy.may_be}")
        return None
    return policy, value


def _read_value(policy: Policy, value: str, places: Mapping[str, str], fault: Fault) -> Any:
    text = value.strip()
    if policy.form is Form.VALUE and text == NONE:
        return _NOTHING.get(policy.read)
    read = readers.named(places) if policy.name == POOL else policy.read
    return read(text, _wrong_of(policy.name, fault))


def _changed(policy: VolumePolicy, changes: Mapping[str, Any]) -> VolumePolicy:
    for path, value in changes.items():
        field, _, inner = path.partition(".")
        if value is None:  # Maya's default
            continue
        if isinstance(value, Several):
            policy = attrs.evolve(policy, **value.fields)
            continue
        if inner:
            value = attrs.evolve(getattr(policy, field), **{inner: value})
        policy = attrs.evolve(policy, **{field: value})
    return policy


def _title(claim: Origin | None, storage_class: Origin | None) -> str:
    return " with ".join(origin.title for origin in (claim, storage_class) if origin is not None)


def _check_resources(policy: VolumePolicy, source: str, faults: list[PolicyFault]) -> None:
    """Kubernetes makes no pod that is promised more than it may take."""
    for title in ("Target", "Replica", "Aux"):
        found: Resources = getattr(policy, f"{title.lower()}_resources")
        for name, text in found.requests.items():
            wanted, limit = readers.quantity(text), readers.quantity(found.limits.get(name, ""))
            if wanted is not None and limit is not None and wanted > limit:
                expected = f"at most the {name} of {title}ResourceLimits, {found.limits[name]}"
                faults.append(PolicyFault(source, f"{title}ResourceRequests", f"{name}: {text}", expected))


def _notes(policy: VolumePolicy) -> list[str]:
    count = policy.replica_count
    members = count + policy.witness
    if count == 1:
        return ["ReplicaCount 1: there is no other copy; when its node is away, so is the volume"]
    if members % 2 == 0 and policy.witness:
        return [f"Witness with ReplicaCount {count}: {members} members bear no more losses than {count} do"]
    if members % 2 == 0:
        without, more = (members - 1) // 2, members // 2
        told = f"ReplicaCount {count}: I/O goes on while at most {without} are away"
        return [f"{told}; with Witness, at most {more}"]
    return []
