"""`pyjiva backup verify`: can the backups be restored?"""

import click

from pyjiva.backup.collect_io import discard_chunks
from pyjiva.backup.verify_io import verify
from pyjiva.cli.backup_options import (
    BACKUP,
    Reporter,
    StoreAddress,
    rate_option,
    run_backup,
    store_options,
    warn,
)

__all__ = ["command"]

EXIT_DAMAGED = 5


@click.command("verify")
@store_options
@click.argument("backups", type=BACKUP, nargs=-1, metavar="[BACKUP]...")
@click.option("--quick", is_flag=True, help="Only look whether every chunk is there.")
@click.option(
    "--discard-bad", is_flag=True, help="Remove damaged chunks, so that the next backup stores them anew."
)
@rate_option
def command(
    store: StoreAddress, backups: tuple[str, ...], quick: bool, discard_bad: bool, rate: int | None
) -> None:
    """Read all that BACKUPs need (default: all in STORE) and compare it with its hashes.

    Exit code: 0 all can be restored, 1 it cannot be said, 2 it cannot be, 5 something is missing or damaged.
    """

    async def run() -> int:
        opened = await store.open()
        with Reporter("verify") as reporter:
            found = await verify(opened, backups, quick=quick, rate=rate, report=reporter)
        for problem in found.problems:
            warn(problem.what + (f" (in {', '.join(problem.backups)})" if problem.backups else ""))
        bad = [problem.chunk for problem in found.problems if problem.chunk]
        if discard_bad and bad:
            await discard_chunks(opened, bad)
        print(f"{found.backups} backups, {found.chunks} chunks, {len(found.problems)} problems")
        return EXIT_DAMAGED if found.problems else 0

    run_backup(run)
