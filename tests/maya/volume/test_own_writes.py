"""`maya.volume.own_writes`: never older than what we have written, whatever the cache has heard."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyjiva.maya.kube import Object
from pyjiva.maya.volume.own_writes import OLDER_MAX, OwnWrites, version_of

KEY = ("openebs", "v")


def made(version: int, uid: str = "u") -> Object:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


class AgainstTheServer(RuleBasedStateMachine):
    """A server that counts versions, others who write too, and a cache that is behind."""

    def __init__(self) -> None:
        super().__init__()
        self.own = OwnWrites()
        self.server = self.cached = self.written = self.looked = 1

    @rule()
    def another_writes(self) -> None:
        self.server += 1

    @rule(by=st.integers(1, 5))
    def the_cache_hears(self, by: int) -> None:
        self.cached = min(self.server, self.cached + by)

    @rule()
    def we_look_and_write(self) -> None:
        """On condition of the version; where that fails we read from the server and write then."""
        self.looked = self.cached
        known = self.own.latest(KEY, made(self.cached))
        assert known is not None
        if known != made(self.server):
            self.own.remember(KEY, version_of(known), made(self.server))
        before = made(self.server)
        self.server += 1
        self.own.remember(KEY, version_of(before), made(self.server))
        self.written = self.server

    @invariant()
    def it_is_what_somebody_wrote_and_the_cache_is_never_preferred_to_our_own(self) -> None:
        known = self.own.latest(KEY, made(self.cached))
        assert known is not None
        version = int(known["metadata"]["resourceVersion"])
        assert self.cached <= version <= self.server
        if self.cached >= self.written:
            assert version == self.cached
        elif self.cached == self.looked:
            assert version == self.written


TestAgainstTheServer = AgainstTheServer.TestCase


def test_own_writes_are_known_until_the_cache_has_them() -> None:
    own = OwnWrites()
    own.remember(KEY, version_of(made(1)), made(2))
    own.remember(KEY, version_of(made(2)), made(3))

    assert [own.latest(KEY, made(behind)) for behind in (1, 2)] == [made(3), made(3)]
    assert own.latest(KEY, made(4)) == made(4)
    assert len(own) == 0, "nothing is kept that the cache has"


def test_what_is_gone_or_made_anew_is_not_what_we_wrote() -> None:
    own = OwnWrites()
    own.remember(KEY, version_of(made(1)), made(2))
    assert own.latest(KEY, made(1, uid="another")) == made(1, uid="another")
    own.remember(KEY, version_of(made(1)), made(2))
    assert own.latest(KEY, None) is None
    assert len(own) == 0


def test_a_cache_that_is_stuck_costs_no_memory_without_end() -> None:
    own = OwnWrites()
    for version in range(1, 1000):
        own.remember(KEY, version_of(made(version)), made(version + 1))
    assert len(own._newest[KEY].older) == OLDER_MAX
