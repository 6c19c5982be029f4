"""Who may have which session."""

import attrs
import pytest

from pyjiva.iscsi.login import LoginMachine
from pyjiva.iscsi.pdu import LoginStatus
from pyjiva.iscsi.session import TSIH_MAX, Session, SessionTable


@attrs.define
class Login:
    """What `SessionTable.admit` looks at."""

    initiator_name: str = "iqn.a"
    isid: bytes = b"isid00"
    tsih: int = 0
    discovery: bool = False


def admit(table: SessionTable, **fields: object) -> tuple[Session, Session | None] | LoginStatus:
    login: LoginMachine = Login(**fields)  # type: ignore[arg-type, assignment]
    return table.admit(login)


def test_same_port_takes_the_place_of_its_old_session() -> None:
    table = SessionTable(1)
    old = admit(table)
    assert isinstance(old, tuple)
    new = admit(table)
    assert isinstance(new, tuple)
    assert new[1] is old[0]
    assert new[0].tsih != old[0].tsih
    assert table.all() == [new[0]]
    table.remove(old[0])  # its connection ends later
    assert table.all() == [new[0]]


@pytest.mark.parametrize("change", [{"isid": b"isid01"}, {"initiator_name": "iqn.b"}])
def test_other_port_has_a_session_of_its_own(change: dict[str, object]) -> None:
    table = SessionTable(2)
    admit(table)
    other = admit(table, **change)
    assert isinstance(other, tuple)
    assert other[1] is None
    assert admit(table, isid=b"isid99") is LoginStatus.OUT_OF_RESOURCES


def test_discovery_sessions_replace_nobody() -> None:
    table = SessionTable(3)
    admit(table)
    discovery = admit(table, discovery=True)
    assert isinstance(discovery, tuple)
    assert discovery[1] is None
    assert len(table) == 2


def test_handle_of_a_session_that_is_not_there() -> None:
    table = SessionTable(3)
    admitted = admit(table)
    assert isinstance(admitted, tuple)
    assert admit(table, tsih=admitted[0].tsih) is LoginStatus.TOO_MANY_CONNECTIONS
    assert admit(table, tsih=admitted[0].tsih + 1) is LoginStatus.SESSION_DOES_NOT_EXIST
    assert admit(table, tsih=admitted[0].tsih, isid=b"other0") is LoginStatus.SESSION_DOES_NOT_EXIST


def test_handles_are_never_zero_and_never_shared() -> None:
    table = SessionTable(3)
    table._next_tsih = TSIH_MAX
    first, second = admit(table, isid=b"a" * 6), admit(table, isid=b"b" * 6)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert (first[0].tsih, second[0].tsih) == (TSIH_MAX, 1)
    table._next_tsih = TSIH_MAX
    third = admit(table, isid=b"c" * 6)
    assert isinstance(third, tuple)
    assert third[0].tsih == 2
