"""`maya.witness.kept`: a vote as a part of a JivaVolume, and what is not taken for one."""

import copy
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.volume.jiva_volume import JivaVolume, JivaVolumeSpec, witness_vote
from pyjiva.maya.witness.kept import VoteOf, blank, vote_of, with_vote
from pyjiva.membership import MembershipRecord
from pyjiva.vote import Vote, VoteUnknown

WHOSE = VoteOf("openebs", "pvc-1", "u-1", 3)
RECORD = MembershipRecord(
    4,
    7,
    "a" * 16,
    (1, 2, 3),
    (1,),
    clean=False,
    parameters=b"x" * 300,
    witnesses=(3,),
    addresses=("a:1", "b:2", "c:3"),
)
VOTE = Vote(5, "b" * 16, RECORD, 9)


def volume(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "openebs", "name": "pvc-1", "uid": "u-1", "resourceVersion": "8"},
        "spec": {"pv": "pvc-1"},
        "status": {"phase": "Ready", **status},
    }


VOTES = st.builds(
    lambda epoch, writes, held: Vote(
        epoch, "c" if epoch else "", RECORD if held and epoch > 3 else None, writes
    ),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.booleans(),
)


@given(vote=VOTES)
def test_what_is_written_is_read_as_the_same(vote: Vote) -> None:
    made = with_vote(WHOSE, volume(replicaCount=2), vote)
    assert vote_of(WHOSE, made) == vote
    assert made["status"]["phase"] == "Ready"
    assert made["status"]["replicaCount"] == 2
    assert made["metadata"]["resourceVersion"] == "8"


@given(vote=VOTES)
def test_the_reconciler_gives_back_what_it_has_read(vote: Vote) -> None:
    """It reads the object into a record and writes that: nothing of the vote is lost or changed by it."""
    field = with_vote(WHOSE, volume(), vote)["status"]["witness"]
    spec = JivaVolumeSpec("pvc-1", 1 << 30, "ab" * 16, desired_replication_factor=2)
    read = JivaVolume("openebs", "pvc-1", spec)
    status = attrs.evolve(read.status, witness=witness_vote(field))
    assert attrs.evolve(read, status=status).status_object()["witness"] == field


def test_a_new_witness_has_promised_nothing() -> None:
    assert vote_of(WHOSE, volume(witness=blank("u-1", 3))) == Vote()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "there is no JivaVolume openebs/pvc-1"),
        (volume(), "has lost its status.witness: when all copies are in sync, set spec.policy.witness"),
        (volume(witness=blank("u-1", 4)), "has the vote of witness 4, and not of 3"),
        (volume(witness=blank("u-2", 3)), "not what a witness wrote there"),
        (volume(witness={"replicaID": 3}), "damaged"),
        (volume(witness={**blank("u-1", 3), "record": "{"}), "damaged"),
        (volume(witness={**blank("u-1", 3), "record": '{"epoch": 1}'}), "damaged"),
    ],
)
def test_what_is_no_vote_of_this_witness_says_so(value: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(VoteUnknown, match=said):
        vote_of(WHOSE, value)


def test_another_object_of_the_same_name_is_not_believed() -> None:
    made = with_vote(WHOSE, volume(), VOTE)
    made["metadata"]["uid"] = "u-2"
    with pytest.raises(VoteUnknown, match="was deleted and made anew"):
        vote_of(WHOSE, made)
    with pytest.raises(VoteUnknown, match="not what a witness wrote there"):
        vote_of(attrs.evolve(WHOSE, uid="u-2"), made)  # as after a restore with its status


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("promisedEpoch", 4), ("promisedEpoch", "5"), ("promisedEpoch", 5.0), ("promisedTo", "c")),
        *(("writes", 10), ("record", ""), ("checksum", "0" * 16), ("more", 1)),
    ],
)
def test_what_somebody_else_wrote_is_not_believed(key: str, value: object) -> None:
    made = copy.deepcopy(with_vote(WHOSE, volume(), VOTE))
    made["status"]["witness"][key] = value
    with pytest.raises(VoteUnknown, match=r"damaged|not what a witness wrote"):
        vote_of(WHOSE, made)


@pytest.mark.parametrize("key", sorted(blank("u-1", 3)))
def test_a_field_that_was_pruned_is_noticed(key: str) -> None:
    made = copy.deepcopy(with_vote(WHOSE, volume(), VOTE))
    del made["status"]["witness"][key]
    with pytest.raises(VoteUnknown):
        vote_of(WHOSE, made)
