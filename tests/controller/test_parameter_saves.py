"""Saves of parameters: what is answered is in a record, and nothing older can come back after it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyjiva.controller.parameter_saves import ParameterSaves
from pyjiva.errors import StorageError, StorageFailure

LIMIT_S = 10.0


class SavesModel(RuleBasedStateMachine):
    """Against a roster that commits one record after the other, each with the newest parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.committed = b""
        self.proposed: bytes | None = None
        self.newest = b""
        self.saves = ParameterSaves(self.changed, self.settled, LIMIT_S)
        self.answers: list[StorageError | None] = []
        self.asked: list[bytes] = []
        self.durable = b""
        """What was answered last without an error: a restart must find it or something newer."""
        self.since: list[bytes] = []
        """Asked for since then, so a restart may find it."""

    def changed(self, parameters: bytes) -> None:
        self.newest = parameters
        self.saves.review()

    def settled(self, parameters: bytes) -> bool:
        return self.newest == self.committed == parameters and self.proposed in (None, parameters)

    @rule(parameters=st.sampled_from([b"", b"a", b"b"]))
    def save(self, parameters: bytes) -> None:
        number = len(self.asked)
        self.asked.append(parameters)
        self.since.append(parameters)

        def done(error: StorageError | None) -> None:
            assert len(self.answers) == number, "in the order of the calls, and once"
            self.answers.append(error)
            if error is None:
                self.durable = parameters
                self.since = self.asked[number + 1 :]

        self.saves.save(parameters, done, self.now_s)

    @precondition(lambda self: self.proposed is None and self.newest != self.committed)
    @rule()
    def propose(self) -> None:
        self.proposed = self.newest

    @precondition(lambda self: self.proposed is None)
    @rule()
    def propose_for_another_reason(self) -> None:
        self.proposed = self.newest

    @precondition(lambda self: self.proposed is not None)
    @rule()
    def commit(self) -> None:
        assert self.proposed is not None
        self.committed, self.proposed = self.proposed, None
        self.saves.committed(self.committed)

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        before = len(self.answers)
        self.saves.tick(self.now_s)
        for error in self.answers[before:]:
            assert error is not None
            assert error.failure is StorageFailure.NOT_READY

    @invariant()
    def a_restart_finds_what_was_answered(self) -> None:
        """Either record may survive."""
        for record in (self.committed, self.proposed):
            assert record is None or record == self.durable or record in self.since

    @invariant()
    def what_was_answered_is_what_it_says(self) -> None:
        assert self.saves.answered == self.durable

    def teardown(self) -> None:
        """When records get through, everything is answered."""
        for _ in range(4):
            if self.proposed is None and self.newest != self.committed:
                self.proposed = self.newest
            if self.proposed is not None:
                self.commit()
        assert len(self.answers) == len(self.asked)
        assert self.committed == self.durable, "what was given up is taken back"


SavesModel.TestCase.settings = settings(max_examples=200, deadline=None)
TestSaves = SavesModel.TestCase
