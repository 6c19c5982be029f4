"""Which initiators may log in: by name and by address.  Pure.

Names and networks are two lists.  An initiator must match one entry of each list that is not empty: a name
alone is only a claim, an address alone only says which machine.  Who may not log in is not told of the target
by discovery either.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["EVERYBODY", "InitiatorRules"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ISCSI_NAME_PREFIXES: Final = ("iqn.", "eui.", "naa.")  # RFC 7143 §4.2.7.3-4.2.7.5
WILDCARD: Final = "*"


@attrs.frozen
class InitiatorRules:
    """Who may log in; without any entry, everybody."""

    names: tuple[str, ...] = ()
    """iSCSI names in lower case; `*` stands for any characters."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "InitiatorRules":
        """Raises ConfigError: neither a name nor a network."""
        names: list[str] = []
        networks: list[Network] = []
        for text in texts:
            name = text.strip().lower()
            if name.startswith((*ISCSI_NAME_PREFIXES, WILDCARD)):
                names.append(name)
                continue
            try:
                networks.append(ipaddress.ip_network(text.strip()))
            except ValueError as error:
                raise ConfigError(
                    f"initiator {text!r}: write an iSCSI name such as iqn.2004-10.com.example:*, "
                    "or a network such as 10.0.0.0/24"
                ) from error
        return cls(tuple(names), tuple(networks))

    def allow(self, initiator_name: str, host: str) -> bool:
        """Whether `initiator_name` may log in from the address `host`."""
        name = initiator_name.lower()  # iSCSI names are compared without case (RFC 7143 §4.2.7.2)
        if self.names and not any(_matches(pattern, name) for pattern in self.names):
            return False
        return not self.networks or self._is_near(host)

    def _is_near(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:  # the peer was gone before its address could be asked
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.networks)


def _matches(pattern: str, name: str) -> bool:
    """One pass, however many `*` there are."""
    first, *rest = pattern.split(WILDCARD)
    if not rest:
        return name == first
    if not name.startswith(first):
        return False
    position = len(first)
    for part in rest[:-1]:
        found = name.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(name) - position >= len(rest[-1]) and name.endswith(rest[-1])


EVERYBODY: Final = InitiatorRules()
