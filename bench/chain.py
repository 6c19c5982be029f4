"""How reads, memory and opening depend on the layers of a replica: `python -m bench.chain`.

- *Depth*: random reads of 4 KiB through 1, 64 and 1000 layers, each of which has a share of the blocks.
- *Index*: a volume with a given number of extents above a snapshot: how long opening takes, how long it takes
  until the table of layers knows every block, and what memory that costs.  The data files hold nothing but
  holes: it is their maps that are read.
- *Writes*: of 4 KiB at random, in place: without a snapshot, the first ones of blocks above a new one, and
  the same blocks again.
- *Pause*: how long requests wait for a snapshot and for a merge's step.

Prints JSON: the machine, the commit, the parameters, and the median of each figure.
"""

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import click

from bench.command import print_figures
from bench.errors import BenchError
from bench.machine_sys import commit, describe_machine
from pyjiva.snapshot import Store
from pyjiva.snapshot.held_map_sys import STABLE
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.units import GIB, KIB, MIB, TIB, format_size

BLOCK: Final = 4 * KIB


@attrs.frozen
class ChainParameters:
    """What the figures depend on, beside the machine and the commit."""

    depths: tuple[int, ...]
    range_bytes: int
    """Of the volume that is read; all of it is in the page cache."""
    reads: int
    writes: int
    rounds: int
    indexes: tuple[tuple[int, int], ...]
    """Sizes of volumes, and how many extents each has above its snapshot, spread evenly."""
    seed: int = 20160901


REAL: Final = ChainParameters(
    (1, 64, 1000), 256 * MIB, 40_000, 20_000, 5, ((TIB, 1_000_000), (16 * GIB, 2_000_000))
)
SMOKE: Final = ChainParameters((1, 3), 8 * MIB, 50, 50, 2, ((GIB, 500),))


@contextmanager
def _opened(path: Path, size_bytes: int) -> Iterator[Store]:
    store = Store.open_or_create(
        path, volume_id="b", replica_id=1, volume_name="b", size_bytes=size_bytes, block_size_bytes=4096
    )
    try:
        yield store
    finally:
        store.close()


def _fill(store: Store, random: Random, parameters: ChainParameters, depth: int) -> list[float]:
    """Give the volume `depth` layers, the head among them; how long requests would have waited for each."""
    blocks = parameters.range_bytes // BLOCK
    for start in range(0, parameters.range_bytes, MIB):
        store.write(start, MIB, [random.randbytes(MIB)])
    pauses = []
    for number in range(depth - 1):
        for _ in range(max(1, blocks // depth)):
            store.write(random.randrange(blocks) * BLOCK, BLOCK, [random.randbytes(BLOCK)])
        store.flush()
        store.prepare_snapshot()
        began = time.perf_counter()
        store.create_snapshot(f"s{number}", tidy=False)
        pauses.append(time.perf_counter() - began)
        store.tidy()
    return pauses


def measure_depths(work: Path, parameters: ChainParameters) -> dict[int, dict[str, float]]:
    """Random reads through many layers, depth by depth in turn, so that all meet the same machine."""
    random = Random(parameters.seed)
    blocks = parameters.range_bytes // BLOCK
    figures: dict[int, dict[str, float]] = {}
    with ExitStack() as stack:
        stores = {}
        for depth in parameters.depths:
            store = stack.enter_context(_opened(work / f"depth-{depth}", parameters.range_bytes))
            pauses = _fill(store, random, parameters, depth)
            store.warm()
            index = store._head.index.memory_bytes if isinstance(store._head, LayerStack) else 0
            pause_ms = round(statistics.median(pauses) * 1e3, 2) if pauses else 0.0
            stores[depth] = store
            figures[depth] = {"index_bytes": index, "snapshot_ms": pause_ms}
        seconds: dict[int, list[float]] = {depth: [] for depth in stores}
        for _ in range(parameters.rounds):
            for depth, store in stores.items():
                for start in range(0, parameters.range_bytes, MIB):
                    store.read(start, MIB)
                places = [random.randrange(blocks) * BLOCK for _ in range(parameters.reads)]
                began = time.perf_counter()
                for place in places:
                    if store.read_nowait(place, BLOCK) is None:
                        store.read(place, BLOCK)
                seconds[depth].append((time.perf_counter() - began) / parameters.reads)
    for depth, samples in seconds.items():
        figures[depth]["read_us"] = round(statistics.median(samples) * 1e6, 2)
        figures[depth]["read_spread_us"] = round((max(samples) - min(samples)) * 1e6, 2)
    return figures


def measure_index(work: Path, parameters: ChainParameters, size_bytes: int, extents: int) -> dict[str, float]:
    """Opening a volume with many extents, and letting the table know all of them."""
    path = work / f"index-{extents}"
    with _opened(path, size_bytes) as store:
        store.create_snapshot("s")
        head = store.chain.head_file
    blocks = size_bytes // BLOCK
    step = blocks // extents
    with open(path / f"{head}.held", "r+b") as held:  # as writes and a flush would have left it
        extent = bytes((STABLE,)) * max(1, step // 2) + bytes(step - max(1, step // 2))
        per_write = max(1, MIB // step)
        for start in range(0, extents, per_write):
            held.seek(start * step)
            held.write(extent * min(per_write, extents - start))
    opens = []
    for _ in range(parameters.rounds):
        began = time.perf_counter()
        with _opened(path, size_bytes):
            opens.append(time.perf_counter() - began)
    with _opened(path, size_bytes) as store:
        resident = _resident_bytes()
        began = time.perf_counter()
        store.warm()
        warm = time.perf_counter() - began
        grown = _resident_bytes() - resident
        assert isinstance(store._head, LayerStack)
        counted = store._head.index.memory_bytes
    return {
        "open_s": round(statistics.median(opens), 4),
        "warm_s": round(warm, 3),
        "index_mib_per_tib": round(counted * TIB / size_bytes / MIB, 2),
        "resident_mib": round(grown / MIB, 1),
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_writes(work: Path, parameters: ChainParameters) -> dict[str, float]:
    """Writes as a replica's event loop makes them, in turn with and without a snapshot."""
    random = Random(parameters.seed)
    seconds: dict[str, list[float]] = {"no snapshot": [], "first": [], "again": []}
    with _opened(work / "writes", parameters.range_bytes) as store:
        store.begin_in_place()
        for start in range(0, parameters.range_bytes, MIB):
            store.write(start, MIB, [random.randbytes(MIB)])
        data = [[random.randbytes(BLOCK)] for _ in range(256)]
        for number in range(parameters.rounds):
            blocks = random.sample(range(parameters.range_bytes // BLOCK), parameters.writes)
            for kind, taken in seconds.items():
                if kind == "first":
                    store.create_snapshot(f"s{number}")
                began = time.perf_counter()
                for at, block in enumerate(blocks):
                    if not store.writes_in_place(block * BLOCK, BLOCK):
                        raise BenchError("a write that should copy into the page cache would go to a thread")
                    store.write(block * BLOCK, BLOCK, data[at & 255], in_place=True)
                taken.append((time.perf_counter() - began) / len(blocks))
            store.delete_snapshot(f"s{number}")
            while (merge := store.next_merge()) is not None:
                store.flush()
                while merge.extent is not None:
                    merge.step()
    return {f"{kind}_us": round(statistics.median(taken) * 1e6, 2) for kind, taken in seconds.items()}


def measure_merge(work: Path, parameters: ChainParameters) -> dict[str, float]:
    """Deleting the older of two snapshots, a quarter of the volume in each."""
    random = Random(parameters.seed)
    steps = []
    with _opened(work / "merge", parameters.range_bytes) as store:
        for name in ("a", "b"):
            for start in range(0, parameters.range_bytes // 4, MIB // 2):
                place = start if name == "a" else start * 2
                store.write(place, MIB // 2, [random.randbytes(MIB // 2)])
            store.create_snapshot(name)
        store.delete_snapshot("a")
        began = time.perf_counter()
        copied = 0
        merge = store.next_merge()
        while merge is not None and merge.extent is not None:
            at = time.perf_counter()
            copied += merge.step()
            steps.append(time.perf_counter() - at)
        total = time.perf_counter() - began
    return {
        "step_ms": round(statistics.median(steps) * 1e3, 2),
        "longest_step_ms": round(max(steps) * 1e3, 2),
        "copied_mib_s": round(copied / MIB / total, 1),
    }


def run(parameters: ChainParameters, work: Path) -> dict[str, Any]:
    """All figures."""
    return {
        "machine": describe_machine(work),
        "commit": commit(),
        "parameters": attrs.asdict(parameters),
        "depth": measure_depths(work, parameters),
        "writes": measure_writes(work, parameters),
        "index": {
            f"{format_size(size)}, {extents} extents": measure_index(work, parameters, size, extents)
            for size, extents in parameters.indexes
        },
        "merge": measure_merge(work, parameters),
    }


@click.command()
@click.option("--smoke", is_flag=True, help="Tiny values: does it work at all?")
@click.option("--work-dir", type=click.Path(path_type=Path, exists=True), help="For the data.")
def main(smoke: bool, work_dir: Path | None) -> None:
    """Measure how reads, memory and opening depend on the layers of a replica."""
    print_figures(partial(run, SMOKE if smoke else REAL), work_dir)


if __name__ == "__main__":
    main()
