"""`make torture`: real daemons on machines that fail, real iSCSI clients that check every read, for a while.

    scripts/torture --seconds 1800 --seed 7

What runs: `pyjiva-controller` and three `pyjiva-replica` (with odd seeds two and a witness) in network
namespaces (`place`), six clients (`clients`), faults drawn from the seed (`faults`), and a watch over what
ought to work (`watch`).  A seed gives the same faults in the same order; what they meet is up to the kernel.

What is checked:

- every read shows the last acknowledged write of its sectors, or a later one that was not acknowledged, and
  what was read once stays (`model`); also when an overtaken controller answers it;
- no write is lost: not by a kill, not by a power cut of some machines; by a power cut of all that hold it
  only when it was not flushed;
- COMPARE AND WRITE finds what the register must hold; no command is answered with an error that nothing
  explains;
- an overtaken controller gets no write answered;
- nobody waits for more than `watch.STUCK_S` while a majority of good copies can be reached;
- no daemon ends by itself; told to stop, all end with exit code 0;
- when the faults end, the volume is healthy within two minutes, every register is read once more, and after
  a clean stop all replicas hold the same bytes.

What is not: rot (the simulation does that), clocks that jump, snapshots, one client's commands that overlap,
reservations, machines that differ in speed; a power cut is one of the layer over the replica's files, not of
the kernel's (`lossy_disk`).

It needs root, for namespaces and mounts, and Linux with ext4 and loop devices.
"""

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import trio

from tests.torture.clients import Clients, Shared, open_session, read_register
from tests.torture.faults import Faults
from tests.torture.model import Model
from tests.torture.place import Place, run_program
from tests.torture.watch import Watch

VOLUME_BYTES: Final = 128 << 20
HEAD: Final = "volume-head-000.img"
START_S: Final = 120.0
STOP_S: Final = 60.0
TAIL_LINES: Final = 100
DAEMON_TAIL_LINES: Final = 20
HASH_STEP_BYTES: Final = 1 << 20


class Interrupted(Exception):
    """Somebody wants the run to end."""


@attrs.define(eq=False)
class Log:
    """What happened, with times, in a file."""

    path: Path
    show: bool
    began: float = attrs.field(factory=time.monotonic)

    def note(self, text: str) -> None:
        """One line."""
        line = f"{time.monotonic() - self.began:9.3f} {text}"
        with self.path.open("a") as file:
            file.write(line + "\n")
        if self.show:
            print(line, flush=True)


@attrs.define(eq=False)
class Run:
    """One run."""

    seconds: float
    seed: int
    work: Path
    log: Log
    place: Place = attrs.field(init=False)
    clients: Clients = attrs.field(init=False)
    faults: Faults = attrs.field(init=False)
    watch: Watch = attrs.field(init=False)
    _on: bool = True
    _expect_ends: bool = False

    def __attrs_post_init__(self) -> None:
        random = Random(self.seed)
        self.place = Place(self.work, VOLUME_BYTES, witness=self.seed % 2 == 1)
        shared = Shared(Model(), lambda: self.faults.controller.host, lambda: self.faults.expects_full)
        self.clients = Clients(shared, Random(random.random()), VOLUME_BYTES)
        self.watch = Watch(self.place, lambda: self.faults.controller, self.clients.clients)
        shared.stalled = self.watch.stalled
        self.faults = Faults(self.place, self.clients, self.watch, Random(random.random()), self.log.note)

    async def play(self) -> None:
        """Run to the end.  Raises what is wrong, and Interrupted."""
        async with trio.open_nursery() as nursery:
            await nursery.start(wait_for_interrupt)
            await self._play()
            nursery.cancel_scope.cancel()

    async def _play(self) -> None:
        await self._start()
        async with trio.open_nursery() as watching:
            watching.start_soon(self.watch.look)
            watching.start_soon(self.watch.ask)
            watching.start_soon(self._look_for_ends)
            async with trio.open_nursery() as using:
                for client in self.clients.clients:
                    using.start_soon(client.run, lambda: self._on)
                await self.faults.run(time.monotonic() + self.seconds)
                self.log.note("the faults end")
                self.watch.kind = "after the faults"
                await self.faults.heal()
                self._on = False
            await self._read_all()
            self._expect_ends = True
            watching.cancel_scope.cancel()
        await self._stop()
        self._compare()

    async def _start(self) -> None:
        for replica in self.place.replicas:
            replica.start()
        self.faults.controller.start(new_volume=True)
        with trio.move_on_after(START_S):
            while not self.faults.controller.ready:
                self._look_for_end()
                await trio.sleep(0.05)
        assert self.faults.controller.ready, f"{self.faults.active} is not ready after {START_S:g} s"
        self.log.note("ready")

    async def _look_for_ends(self) -> None:
        while True:
            self._look_for_end()
            await trio.sleep(0.1)

    def _look_for_end(self) -> None:
        """No daemon may end by itself, but on a full disk and when overtaken (`faults` sees to these)."""
        for replica in self.place.replicas:
            process = replica.daemon.process
            if process is not None and process.poll() is not None and not replica.full:
                raise AssertionError(f"{replica.daemon.name} ended by itself with {process.returncode}")
        process = self.faults.controller.daemon.process
        if process is not None and process.poll() is not None and not self.faults.switching:
            raise AssertionError(f"{self.faults.active} ended by itself with {process.returncode}")

    async def _read_all(self) -> None:
        initiator = await open_session(self.faults.controller.host, "last", 200)
        async with initiator.stream:
            for register in self.clients.shared.model.registers:
                await read_register(initiator, register)
        self.log.note(f"all {len(self.clients.shared.model.registers)} registers were read once more")

    async def _stop(self) -> None:
        for daemon in (self.faults.controller.daemon, *(replica.daemon for replica in self.place.replicas)):
            daemon.terminate()
            with trio.fail_after(STOP_S):
                while (code := daemon.ended()) is None:
                    await trio.sleep(0.05)
            assert code == 0, f"{daemon.name} was told to stop and ended with {code}"
        self.log.note("all stopped")

    def _compare(self) -> None:
        """All replicas hold the same bytes."""
        copies = [replica for replica in self.place.replicas if not replica.witness]
        files = [(replica.directory / HEAD).open("rb") for replica in copies]
        whole = hashlib.blake2b(digest_size=16)
        try:
            for offset in range(0, VOLUME_BYTES, HASH_STEP_BYTES):
                pieces = [file.read(HASH_STEP_BYTES) for file in files]
                whole.update(pieces[0])
                for replica, piece in zip(copies, pieces, strict=True):
                    assert len(piece) == HASH_STEP_BYTES
                    same = piece == pieces[0]
                    assert same, f"{replica.daemon.name} differs from {copies[0].daemon.name} near {offset}"
        finally:
            for file in files:
                file.close()
        self.log.note(f"all {len(copies)} copies are identical: {whole.hexdigest()}")

    def report(self, verdict: str, took_s: float) -> dict[str, Any]:
        """What is printed at the end."""
        counts = self.clients.shared.counts
        return {
            "verdict": verdict,
            "seed": self.seed,
            "replicas": "2 and a witness" if self.place.witness else "3",
            "seconds_with_faults": self.seconds,
            "seconds": round(took_s, 1),
            "operations": dict(sorted(counts.items())),
            "acknowledged": counts.get("writes", 0) + counts.get("unmaps", 0),
            "read": counts.get("reads", 0),
            "flushed": counts.get("flushes", 0),
            "faults": dict(sorted(self.faults.counts.items())),
            "everything_unflushed_lost": self.clients.shared.model.losses,
            "rebuilds": self.watch.rebuilds,
            "longest_stall_s": round(max(self.watch.stalls.values(), default=0.0), 2),
            "longest_stall_while_it_ought_to_answer_s": round(max(self.watch.stuck.values(), default=0.0), 2),
            "longest_stall_by_fault_s": {
                kind: [round(stall, 2), round(max(0.0, self.watch.stuck.get(kind, 0.0)), 2)]
                for kind, stall in sorted(self.watch.stalls.items())
            },
        }


def first_of(error: BaseException) -> BaseException:
    """The first thing that went wrong."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def describe(error: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{type(first_of(error)).__name__}: {first_of(error)}"


def torture(run: Run, json_path: Path | None) -> int:
    """Make the machines, play, remove them, report; the exit code."""
    began = time.monotonic()
    verdict, cause, code = "holds", "", 0
    try:
        try:
            run.place.open()
            run.place.enter_client()
            trio.run(run.play)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to this seed
            interrupted = isinstance(first_of(error), Interrupted | KeyboardInterrupt)
            verdict, code = ("interrupted", 130) if interrupted else (f"FAILED: {describe(error)}", 1)
            run.log.note(verdict)
            if not interrupted:
                cause = traceback.format_exc()
                keep_copies(run)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave anything behind
            signal.signal(number, signal.SIG_IGN)
        run.place.close()
    text = json.dumps(run.report(verdict, time.monotonic() - began), indent=2)
    print(text, flush=True)
    if json_path is not None:
        json_path.write_text(text + "\n")
    if cause:
        lines = ends_of_logs(run.work) + run.log.path.read_text().splitlines()[-TAIL_LINES:]
        print("\n".join([cause, *lines, verdict]), file=sys.stderr)
        print(f"seed {run.seed}; the log, and all that the daemons said, is in {run.work}", file=sys.stderr)
    else:
        shutil.rmtree(run.work)
    return code


def ends_of_logs(work: Path) -> list[str]:
    """What each daemon said last."""
    lines = []
    for path in sorted(work.glob("*.log")):
        said = path.read_text(errors="replace").splitlines()
        lines += [f"{path.stem}: {line}" for line in said[-DAEMON_TAIL_LINES:]]
    return lines


def keep_copies(run: Run) -> None:
    """The file systems lose their mounts: copy what is in them beside them, sparse."""
    for replica in run.place.replicas:
        replica.daemon.kill()
        if replica.directory.is_dir():
            kept = run.work / f"kept-{replica.number}"
            run_program("cp", "-r", "--sparse=always", str(replica.directory), str(kept))


async def wait_for_interrupt(task_status: trio.TaskStatus[None]) -> None:
    """Raise Interrupted when a signal says that the run is to end: between two steps, not within one."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            raise Interrupted(signal.Signals(number).name)


def interrupt(_number: int, _frame: object) -> None:
    """SIGTERM while the machines are made ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="make torture", description="Real daemons, real faults, every read checked."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=None, help="odd: two copies and a witness; default: any")
    parser.add_argument("--json", type=Path, default=None, help="a file for the report")
    parser.add_argument("--quiet", action="store_true", help="print the report alone")
    options = parser.parse_args()
    seed = Random().randrange(1 << 32) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, interrupt)
    work = Path(tempfile.mkdtemp(prefix="pyjiva-torture-"))
    log = Log(work / "log", show=not options.quiet)
    log.note(f"seed {seed}, {options.seconds:g} s with faults, in {work}")
    return torture(Run(options.seconds, seed, work, log), options.json)


if __name__ == "__main__":
    sys.exit(main())
