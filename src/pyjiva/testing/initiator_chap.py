"""The initiator's side of a CHAP login, right or wrong, for tests."""

from collections.abc import Mapping
from typing import Final

import attrs

from pyjiva.iscsi.chap import format_binary, parse_binary, response
from pyjiva.iscsi.text import encode_text
from pyjiva.testing.initiator import INITIATOR_NAME, OFFER, Initiator
from pyjiva.testing.initiator_answers import LoginAnswer

__all__ = ["ChapLogin", "log_in_with_chap"]

OWN_CHALLENGE: Final = bytes(range(16))
OWN_IDENTIFIER: Final = 77


@attrs.frozen(kw_only=True)
class ChapLogin:
    """What the initiator does."""

    name: str
    secret: bytes
    algorithms: str = "8,7,6,5"
    target_secret: bytes = b""
    """Asks for mutual CHAP, and checks the target's proof."""
    reflects: bool = False
    """Sends the target's challenge back as its own."""
    changes: Mapping[str, str] = {}
    """Keys of the last request, put in place of the right ones."""


async def log_in_with_chap(
    initiator: Initiator, chap: ChapLogin, target_name: str = "", initiator_name: str = INITIATOR_NAME
) -> LoginAnswer:
    """A login with a security stage; the answer of the request that ended it.

    Without `target_name` it is a discovery session.
    """
    keys = {"InitiatorName": initiator_name, "AuthMethod": "CHAP,None"}
    keys |= {"TargetName": target_name} if target_name else {"SessionType": "Discovery"}
    answer = await initiator.login_request(flags=0x81, text=encode_text(keys.items()))
    if answer.status or answer.keys.get("AuthMethod") != "CHAP":
        return answer
    answer = await initiator.login_request(flags=0, text=encode_text([("CHAP_A", chap.algorithms)]))
    if answer.status:
        return answer
    challenge, identifier = parse_binary(answer.keys["CHAP_C"]), int(answer.keys["CHAP_I"])
    algorithm = int(answer.keys["CHAP_A"])
    assert challenge is not None
    proof = response(algorithm, identifier, chap.secret, challenge)
    keys = {"CHAP_N": chap.name, "CHAP_R": format_binary(proof)}
    own = challenge if chap.reflects else OWN_CHALLENGE
    if chap.target_secret or chap.reflects:
        keys |= {"CHAP_I": str(OWN_IDENTIFIER), "CHAP_C": format_binary(own)}
    answer = await initiator.login_request(flags=0x81, text=encode_text({**keys, **chap.changes}.items()))
    if answer.status:
        return answer
    if chap.target_secret:
        expected = response(algorithm, OWN_IDENTIFIER, chap.target_secret, own)
        assert parse_binary(answer.keys["CHAP_R"]) == expected, "the target does not know its secret"
    return await initiator.login_request(flags=0x87, text=encode_text(OFFER.items()))
