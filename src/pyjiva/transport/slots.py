"""Connections of strangers, who have proved nothing yet: how many there may be, in all and from one address.
Pure.

A connection that only connects holds a slot until its time is up; the share of one address is a part of the
whole, so that one machine cannot keep all others out.
"""

import ipaddress
from typing import Final

import attrs

__all__ = ["Slots", "neighbourhood"]

_SUBNET_BITS: Final = 64  # whoever has one IPv6 address has a whole subnet of them (RFC 4291 §2.5.4)


def neighbourhood(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 subnet; what is neither, by itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _SUBNET_BITS), strict=False))
    return str(address)


@attrs.define(eq=False)
class Slots:
    """Who holds how many."""

    total_max: int
    per_address_max: int
    _taken: dict[str, int] = attrs.field(factory=dict, init=False)

    def take(self, host: str) -> bool:
        """Whether there was a slot; then it must be given back."""
        near = neighbourhood(host)
        own = self._taken.get(near, 0)
        if own >= self.per_address_max or sum(self._taken.values()) >= self.total_max:
            return False
        self._taken[near] = own + 1
        return True

    def give_back(self, host: str) -> None:
        """The peer is no stranger any more, or is gone."""
        near = neighbourhood(host)
        self._taken[near] -= 1
        if not self._taken[near]:
            del self._taken[near]
