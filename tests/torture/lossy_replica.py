"""`pyjiva-replica` on a machine whose power can be cut: the product, over the layer of `lossy_disk`.

    python -m tests.torture.lossy_replica JOURNAL BOOT-ID [ARGUMENTS OF pyjiva-replica]

Two things are put in its place: how it opens its directory, and which boot of the machine it takes this for.
"""

import os
import sys
from pathlib import Path
from unittest.mock import patch

from pyjiva.cli import replica
from pyjiva.snapshot import store_sys
from pyjiva.sparse import open_directory
from tests.torture.lossy_disk import LossyDirectory


def main() -> None:
    """Run the replica."""
    journal, boot_id = Path(sys.argv[1]), sys.argv[2]
    sys.argv[:3] = ["pyjiva-replica"]

    def open_lossy(path: str | os.PathLike[str]) -> LossyDirectory:
        return LossyDirectory.over(open_directory(path), journal)

    with (
        patch.object(store_sys, "open_directory", open_lossy),
        patch.object(store_sys, "read_boot_id", lambda: boot_id),
    ):
        replica.main()


if __name__ == "__main__":
    main()
