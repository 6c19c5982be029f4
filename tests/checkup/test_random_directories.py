"""Whatever a store did, and however it ended, what it leaves is sound: also before it is opened again."""

from hypothesis import Phase, settings

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
