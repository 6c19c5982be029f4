"""Bugs of the protocol, planted one at a time to see that the simulation finds them (`make sim`).

Each is a change of the sources that somebody could make by mistake: a fence left out, an acknowledgement too
early, a write forgotten.  The old text has to be there exactly once, so the table follows the code.
"""

from pathlib import Path
from typing import Final

import attrs

__all__ = ["PLANTED_BUGS", "PlantedBug"]


@attrs.frozen
class PlantedBug:
    """What to change in one module."""

    module: str
    """Its path below `src/pyjiva`."""
    changes: tuple[tuple[str, str], ...]
    """(old, new) text."""
    also: "tuple[PlantedBug, ...]" = ()
    """More of the same bug, in other modules."""
    scenario: str = ""
    """Of `scenarios`, the one that finds it, where worlds of chance would take too long to."""
    in_past: bool = False
    """Only worlds with snapshots can find it."""
    in_windows: bool = False
    """Only worlds with windows can find it."""
    masked_by: str = ""
    """What else keeps it from doing harm: such a bug need not be found, and is planted to see what is."""

    def plant(self, package: Path) -> None:
        """Change the sources in `package`.  Raises ValueError: an old text is not there exactly once."""
        path = package / self.module
        text = path.read_text()
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.module} has {text.count(old)} times {old!r}")
            text = text.replace(old, new)
        path.write_text(text)
        for bug in self.also:
            bug.plant(package)


UNSURE_IS_SURE: Final = PlantedBug(
    "controller/data_path.py",
    (("                pending.unsure |= bit\n", "                pass\n"),),
)
"""A replica that may have made a change is taken at its word that it has not."""

#: The names say what is wrong.
PLANTED_BUGS: Final[dict[str, PlantedBug]] = {
    "unborn-waits-for-ever": PlantedBug(
        "controller/roster.py",
        (("        unborn = self._is_unborn(record, promised)\n", "        unborn = False\n"),),
        scenario="a witness alone stores the first record",
    ),
    "answer-without-removal": PlantedBug(
        "controller/data_path.py",
        (
            (
                "            if pending.frame is not None:\n                pending.lost |= bit\n",
                "            if pending.frame is not None:\n                pending.waiting &= ~bit\n                if not pending.waiting:\n                    self._settle(id_, pending)\n",
            ),
        ),
    ),
    "no-epoch-check": PlantedBug(
        "replica/data_path.py",
        (("if frame.epoch != self.promised_epoch:", "if False:"),),
        masked_by="the promise, which replaces the connection whose frames these are: with no-supersede it is no-fence",
    ),
    "no-fence": PlantedBug(
        "replica/data_path.py",
        (("if frame.epoch != self.promised_epoch:", "if False:"),),
        also=(
            PlantedBug(
                "replica/daemon_io.py",
                (
                    (
                        "        if self._attached is not None and self._attached is not session:\n            self._replace(self._attached)\n",
                        "",
                    ),
                ),
            ),
        ),
    ),
    "no-promise-fence": PlantedBug(
        "replica/promise.py",
        (
            ("    if epoch < 1 or epoch < state.promised_epoch:", "    if False:"),
            ("        if controller_id != state.promised_to:", "        if False:"),
        ),
        scenario="a promise comes late",
    ),
    "no-supersede": PlantedBug(
        "replica/daemon_io.py",
        (
            (
                "        if self._attached is not None and self._attached is not session:\n            self._replace(self._attached)\n",
                "",
            ),
        ),
        scenario="an overtaken controller pings",
    ),
    "no-wait-idle-at-promise": PlantedBug(
        "replica/daemon_io.py",
        (("        await self.device.wait_idle()\n        epoch = promised", "        epoch = promised"),),
        scenario="an unmap lands late",
    ),
    "skip-reconcile": PlantedBug(
        "controller/roster.py", (("nothing = clean or not targets or extents == ()", "nothing = True"),)
    ),
    "forget-unstable": PlantedBug(
        "replica/unstable.py",
        (("        self._writes.append((epoch, request_id, offset_bytes, length_bytes))", "        pass"),),
        scenario="a write reaches one replica",
    ),
    "stable-too-high": PlantedBug(
        "controller/data_path.py",
        (("            return oldest - 1\n", "            return self._last_id\n"),),
    ),
    "serve-from-any": PlantedBug(
        "controller/roster.py",
        (
            (
                "            i: promised[i] for i in record.in_sync if i in promised and (unborn or self._took_part(i, record))\n",
                "            i: promised[i] for i in promised\n",
            ),
        ),
    ),
    "rebuild-not-advanced": PlantedBug(
        "controller/volume_io.py",
        (("        self._data.members[resync.target].synced_until = resync.position\n", "        pass\n"),),
    ),
    "advanced-after-unlock": PlantedBug(
        "controller/range_copy.py",
        (
            (
                "        self.walk.equal(self)\n        self._unlock()\n",
                "        self._unlock()\n        self.walk.equal(self)\n",
            ),
        ),
    ),
    "rebuild-without-lock": PlantedBug(
        "controller/volume_io.py",
        (
            (
                "        self._data.acquire(extent, owner)\n",
                "        owner.lock_held(type(self._data._locks)().acquire(0, 1, exclusive=False, owner=owner))\n",
            ),
            ("        self._data.release(lock)\n", "        pass\n"),
        ),
    ),
    "join-not-required": PlantedBug(
        "controller/roster.py",
        (("ids = {m.id for m in self.members.values() if m.mode is Mode.JOINING}", "ids: set[int] = set()"),),
    ),
    "join-without-flush": PlantedBug(
        "controller/volume_io.py",
        (
            (
                "        self._ask(resync.target, FrameType.FLUSH, partial(self._flushed, resync.target))",
                "        self._apply(Joined(resync.target))",
            ),
        ),
        scenario="all lose power after one joined",
    ),
    "promise-not-durable": PlantedBug(
        "replica/daemon_io.py",
        (
            (
                "            await self.in_thread(partial(self.store.save_state, promised))",
                "            self.store._state = promised",
            ),
        ),
        scenario="a promise is forgotten",
    ),
    "accept-not-durable": PlantedBug(
        "replica/daemon_io.py",
        (
            (
                "        self.store.save_state(state)\n        if equal",
                "        import attrs as _a\n        self.store._state = _a.evolve(state, written_boot_id=self.store._state.written_boot_id)\n        if equal",
            ),
        ),
    ),
    "intact-ignored": PlantedBug(
        "controller/roster.py",
        (
            (
                "intact = {i: a for i, a in candidates.items() if a.intact or newest.clean}",
                "intact = candidates",
            ),
            ("        return member.answer.intact or self.required() == {member.id}", "        return True"),
        ),
    ),
    "equal-not-checked": PlantedBug(
        "replica/daemon_io.py",
        (("        equal = in_sync and bool(frame.code & Flag.EQUAL)", "        equal = in_sync"),),
    ),
    "flush-not-sent": PlantedBug(
        "replica/data_path.py",
        (
            (
                "        self.device.submit(Flush(partial(self._carried_out, peer, frame)))",
                "        self._carried_out(peer, frame, Flush(lambda _: None))",
            ),
        ),
    ),
    "fua-ignored": PlantedBug(
        "replica/data_path.py",
        (
            (
                "                bool(frame.code & _FORCE_UNIT_ACCESS),\n                atomic",
                "                False,\n                atomic",
            ),
        ),
    ),
    "overlap-no-locks": PlantedBug(
        "controller/data_path.py",
        (
            (
                "            if not lock.blockers:\n                self._dispatch_of",
                "            lock.blockers = 0\n            if not lock.blockers:\n                self._dispatch_of",
            ),
        ),
    ),
    "removal-before-commit": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if self.committed is not None:\n            ids.update(self.committed.in_sync)",
                "        if self.committed is not None:\n            ids.update(i for i in self.committed.in_sync if self.members[i].mode is not Mode.OUT)",
            ),
        ),
    ),
    "admission-after-commit": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if self.proposal is not None:\n            ids.update(self.proposal.record.in_sync)\n        return ids",
                "        return ids",
            ),
            ("{m.id for m in self.members.values() if m.mode is Mode.JOINING}", "{0 for m in ()}"),
        ),
    ),
    "minority-commit": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if not self.is_majority(proposal.accepted):\n            return",
                "        if not proposal.accepted:\n            return",
            ),
        ),
        scenario="a minority holds the record",
    ),
    "minority-promise": PlantedBug(
        "controller/roster.py",
        (("        if not is_majority(voters, [configured]) and not", "        if not promised and not"),),
    ),
    "replay-twice": PlantedBug(
        "controller/data_path.py",
        (
            (
                "            if pending.lost & member.bit:",
                "            if pending.waiting & member.bit:",
            ),
        ),
        scenario="parked requests are sent once",
    ),
    "no-replay": PlantedBug(
        "controller/volume_io.py",
        (("                    self._data.replay(member)\n", "                    pass\n"),),
    ),
    "stale-answers-after-cancel": PlantedBug(
        "controller/roster.py",
        (
            (
                "                    self._bid_again()\n            case Phase.COMMITTING",
                "                    self._choose()\n            case Phase.COMMITTING",
            ),
        ),
        scenario="the source is lost while members are made equal",
    ),
    "stable-while-settling": PlantedBug(
        "controller/data_path.py",
        (("        if not self.serving:\n            return 0\n", ""),),
        scenario="the source is lost while members are made equal",
    ),
    "source-lost-in-locking": PlantedBug(
        "controller/volume_io.py",
        (("                resync.member_lost(member_id)\n", "                pass\n"),),
        scenario="a source is lost while its range is locked",
    ),
    "all-refused-come-back": PlantedBug(
        "controller/volume_io.py",
        (("        self._apply(Diverged(member_id, reason))\n", "        pass\n"),),
        scenario="all disks are full",
    ),
    "min-copies-ignored": PlantedBug(
        "controller/data_path.py",
        (("return (self.must_ack & ~joining).bit_count() >= self._min_copies", "return True"),),
        scenario="one copy is left of a write",
    ),
    "blackout-stuck": PlantedBug(
        "controller/roster.py", (("            self._begin_again_if_stuck()\n", "            pass\n"),)
    ),
    "believe-what-nobody-committed": PlantedBug(
        "controller/roster.py",
        (("before = self._before(newest, promised) if not intact else None", "before = None"),),
        scenario="the copy that is left loses its power",
    ),
    "rebooted-returns": PlantedBug(
        "controller/roster.py",
        (("        return member.answer.intact or self.required() == {member.id}", "        return True"),),
        scenario="a machine loses its power while nobody writes",
    ),
    "no-lease": PlantedBug(
        "controller/volume_io.py",
        (("        self._data.clock = self.clock\n", "        self._data.clock = None\n"),),
        scenario="a controller and a replica are cut off together",
    ),
    "no-wait-out": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if self._wait_out and self.wait_out_s and self._now_s < over_at_s:",
                "        if False:",
            ),
        ),
        masked_by="no-grace: who could answer the old controller's reads is in sync and missing, and is waited for longer",
    ),
    "no-grace": PlantedBug(
        "controller/roster.py",
        (("GRACE_S: Final = 3.0 ", "GRACE_S: Final = 0.0 "),),
        masked_by="no-wait-out; and whoever is chosen has everything, so what is lost by haste is a copy",
    ),
    "no-wait-for-the-lease": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if self._wait_out and self.wait_out_s and self._now_s < over_at_s:",
                "        if False:",
            ),
            ("GRACE_S: Final = 3.0 ", "GRACE_S: Final = 0.0 "),
        ),
        scenario="a controller and a replica are cut off together",
    ),
    "dirty-forgets-pending": PlantedBug(
        "controller/data_path.py",
        (
            (
                "                    if pending.change is None:\n                        dirty.mark(*pending.extent)",
                "                    if pending.change is None:\n                        pass",
            ),
        ),
        scenario="a replica dies with a write on its way",
    ),
    "dirty-forgets-writes": PlantedBug(
        "controller/data_path.py",
        (("        if self.dirty:\n            self._mark_dirty(offset, length)", "        pass"),),
    ),
    "dirty-kept-after-reboot": PlantedBug(
        "controller/roster.py",
        (("member.kept_everything = ours and report.intact", "member.kept_everything = True"),),
        scenario="a machine loses its power while nobody writes",
    ),
    "jump-without-border": PlantedBug(
        "controller/resync.py",
        (
            ("        self._advance(extent.offset_bytes)\n", "        self.position = extent.offset_bytes\n"),
            (
                "        self._advance(position if left is None else left.offset_bytes)\n",
                "        self._advance(position)\n",
            ),
        ),
        scenario="a write comes to what a rebuild has passed over",
    ),
    "border-beyond-what-is-left": PlantedBug(
        "controller/resync.py",
        (
            (
                "        position = end if start <= self.position else self.position\n",
                "        position = end\n",
            ),
        ),
        scenario="a write comes to what a rebuild has done too early",
    ),
    "no-pause": PlantedBug(
        "controller/roster.py",
        (("        if not longest_s:", "        if True:"),),
        scenario="two controllers begin at once",
    ),
    "mark-clean-lies": PlantedBug(
        "snapshot/store_sys.py",
        (("stable = self._writes.begun() == self._writes_flushed", "stable = True"),),
        masked_by="stop-unflushed: whoever asks for the mark has flushed in the same step, with nothing on its way",
    ),
    "stop-unflushed": PlantedBug(
        "replica/daemon_io.py",
        (
            (
                "        self.store.flush()\n        self.store.mark_clean()\n",
                "        self.store.mark_clean()\n",
            ),
        ),
        masked_by="mark-clean-lies: the store counts what it has flushed",
    ),
    "clean-unflushed": PlantedBug(
        "snapshot/store_sys.py",
        (("stable = self._writes.begun() == self._writes_flushed", "stable = True"),),
        scenario="a replica is stopped and switched off",
        also=(
            PlantedBug(
                "replica/daemon_io.py",
                (
                    (
                        "        self.store.flush()\n        self.store.mark_clean()\n",
                        "        self.store.mark_clean()\n",
                    ),
                ),
            ),
        ),
    ),
    "clean-while-writes-are-on-their-way": PlantedBug(
        "controller/volume_io.py",
        (
            (
                "                while self._data.writing or self._data.changing or self._repairs.running:\n                    await trio.sleep(TICK_S)\n",
                "",
            ),
        ),
        scenario="a clean stop with an unmap on its way",
    ),
    "given-up-on-old-news": PlantedBug(
        "controller/roster.py",
        ((" and m.id not in self._doubtful for m in", " for m in"),),
        masked_by="the order in which a record that takes members out is stored: see taken-out-on-old-news",
    ),
    "taken-out-on-old-news": PlantedBug(
        "controller/roster.py",
        (
            (" and m.id not in self._doubtful for m in", " for m in"),
            ("and changed and self._one_was_heard(wanted):", "and changed:"),
            (
                "        if self._stands(asked.record) or asked.member in self._left_whole(asked.record):\n",
                "        if True:\n",
            ),
        ),
        scenario="a copy that lost its power unnoticed",
    ),
    "change-without-the-old-majority": PlantedBug(
        "controller/roster.py",
        (
            (
                "        sets = [record.configured for record in records if record is not None]\n",
                "        sets = [record.configured for record in records if record is not None][-1:]\n",
            ),
        ),
        masked_by="the first record of an epoch, which a majority accepts before the set changes: sets that differ by one have no majorities that do not meet",
    ),
    "newcomer-has-a-vote": PlantedBug(
        "controller/roster.py",
        (
            (
                "        return self.is_majority(m.id for m in self.members.values() if m.promised)",
                "        return sum(m.promised for m in self.members.values()) >= 2",
            ),
        ),
        masked_by="the record without the member that is given up, which a majority of the configured ones accepts: a rebuild too many is all",
    ),
    "witness-counts-as-a-copy": PlantedBug(
        "controller/roster.py",
        (
            (
                "            chosen = {i: promised[i] for i in self.configured if not self.members[i].witness}",
                "            chosen = promised",
            ),
        ),
    ),
    "rot-not-compared": PlantedBug(
        "sparse/checked_file_sys.py",
        (("        return None if first_bad(sums, data) >= 0 else data", "        return data"),),
        scenario="rot lies in two blocks that are read",
    ),
    "rot-in-one-block-not-compared": PlantedBug(
        "block_sums.py",
        (("        return 0 if known and known != (_hash(data) or 1) else -1\n", "        return -1\n"),),
    ),
    "rot-laundered-by-a-partial-write": PlantedBug(
        "sparse/checked_file_sys.py",
        (("                    spoilt.append(place >> _SHIFT)\n", "                    pass\n"),),
        scenario="rot lies under a partial write",
    ),
    "rot-found-and-not-repaired": PlantedBug(
        "controller/range_copy.py",
        (
            (
                "            self._map()\n            return\n        if frame is None",
                "            self._done()\n            return\n        if frame is None",
            ),
        ),
        scenario="rot lies in two blocks that are read",
    ),
    # --- snapshots
    "level-skipped": PlantedBug(
        "controller/roster.py",
        (
            (
                "        if newest or len({answer.lineage.digest",
                "        if False and len({answer.lineage.digest",
            ),
        ),
        in_past=True,
    ),
    "revert-not-levelled": PlantedBug(
        "lineage.py",
        (
            (
                "        if here.standing_on != goal.standing_on or self.last_revert != goal.last_revert:",
                "        if here.standing_on != goal.standing_on:",
            ),
        ),
        scenario="a revert reaches one replica",
        in_past=True,
    ),
    "snapshots-not-compared": PlantedBug(
        "controller/catch_up.py",
        (("        if unequal is not None:", "        if False:"),),
        also=(PlantedBug("lineage.py", (("                whole=False,\n", ""),)),),
        in_past=True,
    ),
    "whole-before-stable": PlantedBug(
        "snapshot/layered_store_sys.py",
        (
            (
                "                self._content.make_stable(name)\n                filled =",
                "                filled =",
            ),
        ),
        in_past=True,
    ),
    "deleted-before-stable": PlantedBug(
        "snapshot/layered_store_sys.py",
        (
            (
                "            self._content.make_stable(name)\n        self._layers.change",
                "            pass\n        self._layers.change",
            ),
        ),
        scenario="a snapshot is deleted while a replica is given it",
        in_past=True,
    ),
    "change-without-the-lock": PlantedBug(
        "controller/data_path.py",
        (
            (
                "            if not lock.blockers:\n                self._dispatch_of",
                "            if type(request) is ChangeRequest:\n                lock.blockers = 0\n            if not lock.blockers:\n                self._dispatch_of",
            ),
        ),
        in_past=True,
    ),
    "rebuild-ends-during-a-change": PlantedBug(
        "controller/volume_io.py",
        (
            (
                "        if self._data.changing:  # it does not get the change",
                "        if False:  # it does not get the change",
            ),
        ),
        in_past=True,
    ),
    "rebuild-begins-during-a-change": PlantedBug(
        "controller/volume_io.py",
        (
            ("        if self._data.changing:  # what it ought", "        if False:  # what it ought"),
            (
                "            self._bring_up(target, None)\n",
                "            answer = self._roster.members[target].answer\n            assert answer is not None\n            self._bring_up(target, answer.lineage)\n",
            ),
        ),
        scenario="a replica comes back while a snapshot is made",
        in_past=True,
    ),
    "dirty-forgets-reverts": PlantedBug(
        "controller/data_path.py",
        (
            (
                "            for member_id in self.dirty:\n                self.dirty[member_id] = DirtyMap(self.size_bytes, everything=True)\n        self._send",
                "            pass\n        self._send",
            ),
        ),
        in_past=True,
        masked_by="the last revert, by which who missed one is brought up to it, and compared whole",
    ),
    "dirty-forgets-a-pending-revert": PlantedBug(
        "controller/data_path.py",
        (
            (
                "                    elif pending.change.kind is ChangeKind.REVERT:",
                "                    elif False:",
            ),
        ),
        in_past=True,
        masked_by="as dirty-forgets-reverts",
    ),
    "change-made-twice": PlantedBug(
        "snapshot/layered_store_sys.py",
        (
            (
                "        if change.before != change.after == self.chain.generation and self._has_made(change):\n            return\n",
                "        if change.before != change.after == self.chain.generation and self._has_made(change):\n            change = attrs.evolve(change, before=change.after)\n            if change.kind is not ChangeKind.REVERT:\n                return\n",
            ),
        ),
        in_past=True,
        masked_by="the lock of the whole volume: nothing was written since it was made the first time",
    ),
    "any-change-of-the-generation-is-this-one": PlantedBug(
        "snapshot/layered_store_sys.py",
        ((" and self._has_made(change):", ":"),),
        also=(UNSURE_IS_SURE,),
        in_past=True,
        masked_by="a store that is not sure is broken, and not intact for the next process: it is rebuilt",
    ),
    "any-change-of-the-generation-is-this-one-in-a-broken-store": PlantedBug(
        "snapshot/layered_store_sys.py",
        ((" and self._has_made(change):", ":"),),
        also=(
            UNSURE_IS_SURE,
            PlantedBug(
                "snapshot/store_sys.py",
                (
                    (
                        "    def _break(self, error: StorageError) -> None:\n",
                        "    def _break(self, error):\n        return\n",
                    ),
                ),
            ),
        ),
        scenario="one replica is not sure that it made a snapshot",
        in_past=True,
    ),
    "too-large-for-ever": PlantedBug(
        "lineage.py",
        (("        elif goal.size_bytes < self.size_bytes:\n", "        elif False:\n"),),
        scenario="a replica grows alone",
        in_past=True,
    ),
    "change-beside-requests": PlantedBug(
        "snapshot/device_io.py",
        (("                await self._wait_in_flight()\n", "                pass\n"),),
        in_past=True,
        masked_by="the controller, which lets no request be in flight",
    ),
    "removed-stops-merges": PlantedBug(
        "snapshot/chain.py",
        (("removed=True, whole=True).pruned()", "removed=True).pruned()"),),
        in_past=True,
    ),
    "snapshot-without-flush": PlantedBug(
        "snapshot/layers_sys.py",
        (
            (
                "        self._free_name(layer.name)\n        self.owner.settle_all()\n",
                "        self._free_name(layer.name)\n",
            ),
        ),
        in_past=True,
    ),
    "window-without-a-look-at-the-stamp": PlantedBug(
        "snapshot/window_sys.py",
        (("        if stamp == self._stamp:\n", "        if stamp is not None:\n"),),
        in_past=True,
        in_windows=True,
    ),
    "change-keeps-the-stamp": PlantedBug(
        "snapshot/layers_sys.py",
        (("        self.stamp.change()\n", ""),),
        in_past=True,
        in_windows=True,
    ),
    "window-is-not-told-of-writes": PlantedBug(
        "controller/data_path.py",
        (("        elif self.windows.bit and pending.type not in _READS:\n", "        elif False:\n"),),
        in_past=True,
        in_windows=True,
    ),
    "window-outlives-the-lease": PlantedBug(
        "controller/data_path.py",
        (
            (
                "        if data is None or (self.clock is not None and self.clock() >= self.lease_until_s):\n",
                "        if data is None:\n",
            ),
        ),
        in_windows=True,
    ),
}
