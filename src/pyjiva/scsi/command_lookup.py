"""Which row of the command table is a CDB's, and whether the CDB asks for what we do not do.  Pure; hot."""

from typing import Final

from pyjiva.scsi.command_table import COMMANDS, Command

__all__ = ["find", "has_service_actions", "refuses"]

_SERVICE_ACTION: Final = 0x1F
_ROWS: Final[dict[int, Command]] = {}
"""Those without a service action, by operation code."""
_ACTIONS: Final[dict[int, dict[int, Command]]] = {}
"""The others: by operation code, and then by service action."""
for _row in COMMANDS:
    if _row.service_action is None:
        _ROWS[_row.operation_code] = _row
    else:
        _ACTIONS.setdefault(_row.operation_code, {})[_row.service_action] = _row
assert not _ROWS.keys() & _ACTIONS.keys()


def has_service_actions(cdb: bytes) -> bool:
    """Whether `find` looks at the service action too: what is wrong with a CDB that it does not find."""
    return cdb[0] in _ACTIONS


def find(cdb: bytes) -> Command | None:  # hot
    """The row for a CDB; None: not supported, or the CDB is cut short."""
    row = _ROWS.get(cdb[0])
    if row is not None:
        return row
    actions = _ACTIONS.get(cdb[0])
    return None if actions is None else actions.get(cdb[1] & _SERVICE_ACTION)


def refuses(command: Command, cdb: bytes) -> bool:  # hot
    """Whether a bit is set that must be zero; what the transport adds to fill its field is not seen."""
    for place, bits in command.refused_bits:  # noqa: SIM110  # interpreted, a generator takes twice as long
        if cdb[place] & bits:
            return True
    return False
