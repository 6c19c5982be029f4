"""pyjiva's iSCSI target over one local sparse chain, without replication: a process to be measured.

`python -m bench.local_target DIR SIZE_BYTES` prints `ready url=URL` and serves until SIGINT, SIGTERM or the
end of its standard input.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

import trio

from pyjiva.cli.daemon import run_daemon, wait_for_stop
from pyjiva.iscsi import Target, TargetOptions, open_portal, portal_address, serve_portal
from pyjiva.scsi import LogicalUnit, UnitIdentity
from pyjiva.snapshot import open_chain_device
from pyjiva.transport import EndOfBatch

IQN: Final = "iqn.2016-09.com.openebs.jiva:bench-local"
VOLUME_ID: Final = "6d1c2a52-3a0f-4a5e-9d0c-0f6f2b7f1c11"
BLOCK_SIZE_BYTES: Final = 512


async def serve(directory: Path, size_bytes: int) -> int:
    """Serve until told to stop; the exit code."""
    batch = EndOfBatch()
    async with open_chain_device(
        directory, size_bytes=size_bytes, block_size_bytes=BLOCK_SIZE_BYTES, batch=batch
    ) as device:
        unit = LogicalUnit(device, UnitIdentity(VOLUME_ID), BLOCK_SIZE_BYTES)
        target = Target(TargetOptions(target_name=IQN), {0: unit}, batch)
        async with trio.open_nursery() as nursery:
            listeners = await open_portal("127.0.0.1", 0)
            nursery.start_soon(serve_portal, target, listeners)
            host, port = portal_address(listeners)
            print(f"ready url=iscsi://{host}:{port}/{IQN}/0", flush=True)
            await wait_for_stop(stop_with_stdin=True)
            await target.shut_down()
            nursery.cancel_scope.cancel()
    return 0


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="bench.local_target", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("size_bytes", type=int)
    options = parser.parse_args()

    async def run() -> int:
        return await serve(options.directory, options.size_bytes)

    sys.exit(run_daemon("bench.local_target", run))


if __name__ == "__main__":
    main()
