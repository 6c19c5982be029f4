"""Whatever a store did, and however it ended, what it leaves is sound: also before it is opened again."""

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pyjiva.extent import Extent
from pyjiva.snapshot.state import STATE_FILE
from tests.checkup.replicas import look
from tests.snapshot.test_layered_store import LayeredStoreMachine


class CheckedStoreMachine(LayeredStoreMachine):
    """Each time before the directory is opened it is looked at: as a crash left it, or a clean stop."""

    def open(self) -> None:
        """See LayeredStoreMachine."""
        if STATE_FILE in self.disk.inodes():
            report = look(self.disk, boot_id=f"b-{self.boots}")
            assert report.is_sound, report.findings
        super().open()


TestCheckedStore = CheckedStoreMachine.TestCase
TestCheckedStore.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink an example takes minutes
)


@given(st.none())  # the machine notes what it does, which hypothesis takes within a test of its own alone
@settings(max_examples=1, deadline=None)
def test_a_clone_that_was_being_filled_when_the_power_went_twice_is_not_called_bad(nothing: None) -> None:
    """Found by `TestCheckedStore`: the store forgets the checksums of such a layer; the check did not."""
    assert nothing is None
    machine = CheckedStoreMachine()
    machine.create(seed=202, numbered=True)
    machine.write_atomic(crash=("full", 17), extent=Extent(0, 8192), seed=21)
    machine.create_snapshot(crash=("power", 24), name="d", tidy=True)
    machine.create_snapshot(crash=None, name="d", tidy=True)
    machine.write(crash=("power", 42), extent=Extent(4096, 4096), seed=61)
    machine.stop_cleanly(crash=("power", 44))
    machine.go_on_with_a_clone("d", 91099)
    machine.write_atomic(crash=("power", 10), extent=Extent(16773120, 8192), seed=34)
    machine.lose_power()
