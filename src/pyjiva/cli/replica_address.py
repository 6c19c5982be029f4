"""`ID=HOST:PORT` on a command line."""

from typing import Any, Final

import click

from pyjiva.cli.daemon import Address
from pyjiva.controller import ReplicaAddress
from pyjiva.errors import ConfigError

__all__ = ["REPLICA"]


class _ReplicaType(click.ParamType[ReplicaAddress]):
    name = "id=host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReplicaAddress:
        if isinstance(value, ReplicaAddress):
            return value
        number, equals, text = value.partition("=")
        if not equals or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r}: write ID=HOST:PORT, such as 1=10.0.0.1:9502", param, ctx)
        try:
            address = Address.parse(text)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return ReplicaAddress(int(number), address.host, address.port)


REPLICA: Final = _ReplicaType()
