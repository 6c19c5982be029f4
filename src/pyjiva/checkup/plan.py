"""What a repair of a replica's directory does: a plan of steps, made from what was found.  Pure.

*Never destroys.*  What is replaced keeps its content under a name of its own in the same directory,
`pyjiva-repair-TIME.NAME.kept`: giving a file another name is one step that a power cut leaves done or undone,
and neither the store nor Jiva looks at such names.

*Never claims too much.*  Whatever has damaged one file may have taken more.  So before anything that was
damaged is mended, the state says durably that this copy is behind, in both of the ways in which a controller
asks (docs/explanation/replication.md):

- `told_equal` becomes false: a controller that activates does not take this directory for the one that the
  record names, whatever the record says.  `written_boot_id` alone would not do: after a clean stop the record
  says `clean`, and then it is not asked.
- `written_boot_id` becomes REPAIRED, which no boot is, so the store is not `intact`: a controller that has
  been running all the time and waits for this member does not take it back as one that lost nothing, and
  compares everything instead of what its dirty map says.

Both end when a controller says that the copy is equal.  With `last_copy` the operator says that there is no
other one to compare with: then `told_equal` stays, or the volume would wait for ever.

A store that is not intact sweeps, when it is opened, the blocks that were written for the first time and not
flushed.  After a kill in this boot they are good, so the chain says first that this boot has been swept.

*Repeatable.*  Every step is durable before the next.  A repair that was cut is planned anew from what is
found then: a file that was put aside and not written yet is missing, which has the same remedy.

*Not mended*, since nothing says what was there: the state (membership must not be made up), data, and the map
of the blocks that a layer holds.  The map cannot be made from the layer's data: a block that is a hole in the
file may have been unmapped (it shows zeros) or never written (it shows what is below), and one that has data
may be left from a first write that was undone.  To guess "not held" lets unmapped data come back, to guess
"held" hides old data; a rebuild compares the volume, not each snapshot, so neither guess would be found out.
If there is such damage, nothing is done at all: the directory is to be moved away as it is.
"""

from typing import Final

import attrs

from pyjiva.checkup import finding
from pyjiva.checkup.chain_source import ChainSource
from pyjiva.checkup.facts import BLOCK_BYTES, KEPT_PREFIX, SUM_BYTES, Listing
from pyjiva.checkup.finding import Finding, Remedy, Severity
from pyjiva.checkup.report import Report
from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import CHAIN_FILE, HEAD, Chain
from pyjiva.snapshot.chain_file import encode_chain
from pyjiva.snapshot.metadata import META_SUFFIX, DiskMeta
from pyjiva.snapshot.state import REPAIRED, STATE_FILE, ReplicaState, encode_state

__all__ = ["Copy", "MakeSums", "Plan", "PutAside", "Rename", "Step", "Write", "make_plan"]


@attrs.frozen
class Copy:
    """Keep a copy of a file that is about to be replaced."""

    name: str
    kept: str
    content: bytes = attrs.field(repr=False)

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"copy {self.name} to {self.kept}"


@attrs.frozen
class PutAside:
    """Give a file that is about to be written anew another name."""

    name: str
    kept: str

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"keep {self.name} as {self.kept}"


@attrs.frozen
class Rename:
    """Give a layer's file the name that the chain says."""

    old: str
    new: str

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"rename {self.old} to {self.new}"


@attrs.frozen
class Write:
    """Make `content` the whole content of a file."""

    name: str
    content: bytes = attrs.field(repr=False)
    what: str = ""

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"write {self.name}: {self.what}"


@attrs.frozen
class MakeSums:
    """Make a file of checksums, or the end of one: none of them is known."""

    name: str
    size_bytes: int

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"make {self.name}: checksums that it does not have are unknown"


Step = Copy | PutAside | Rename | Write | MakeSums


@attrs.frozen
class Plan:
    """The steps of a repair, in order."""

    steps: tuple[Step, ...]
    left: tuple[Finding, ...]
    """Damage that the steps do not mend."""
    behind: bool
    """Whether the replica counts as behind afterwards, because of them."""


def make_plan(report: Report, *, stamp: str, last_copy: bool = False) -> Plan:
    """How to repair what `report` found.

    `stamp` is the time, as a part of file names.  `last_copy`: see above.
    """
    damage = [each for each in report.findings if each.kind.severity is Severity.DAMAGE]
    hopeless = [each for each in damage if each.kind.remedy is Remedy.REBUILD]
    if hopeless or report.structure.known is None:
        return Plan((), tuple(damage), behind=False)
    maker = _Maker(report, _free_prefix(report.listing, stamp))
    mended = [each for each in damage if each.kind.remedy is Remedy.REPAIR]
    behind = bool(mended)
    if behind:
        maker.say_behind(last_copy)
    maker.finish_renames()
    maker.write_chain(mended)
    maker.write_metas()
    maker.make_sums(mended)
    return Plan(tuple(maker.steps), tuple(each for each in damage if each not in mended), behind)


def _free_prefix(listing: Listing, stamp: str) -> str:
    """What the names of kept files begin with; no file has such a name yet."""
    prefix, number = f"{KEPT_PREFIX}{stamp}.", 1
    while any(name.startswith(prefix) for name in listing.files):
        number += 1
        prefix = f"{KEPT_PREFIX}{stamp}-{number}."
    return prefix


_KEPT_SUFFIX: Final = ".kept"


@attrs.define
class _Maker:
    """The steps as they are put together."""

    report: Report
    prefix: str
    steps: list[Step] = attrs.field(factory=list)

    @property
    def listing(self) -> Listing:
        return self.report.listing

    @property
    def state(self) -> ReplicaState:
        assert self.report.structure.state is not None
        return self.report.structure.state

    @property
    def chain(self) -> Chain:
        assert self.report.structure.known is not None
        return self.report.structure.known.chain

    @property
    def source(self) -> ChainSource:
        assert self.report.structure.known is not None
        return self.report.structure.known.source

    def _kept(self, name: str) -> str:
        return f"{self.prefix}{name}{_KEPT_SUFFIX}"

    def _put_aside(self, name: str) -> None:
        if name in self.listing:
            self.steps.append(PutAside(name, self._kept(name)))

    def _replace(self, name: str, content: bytes, what: str) -> None:
        """Write a file; there is always the old one or the new one."""
        old = self.listing[name].content
        assert old is not None
        self.steps.append(Copy(name, self._kept(name), old))
        self.steps.append(Write(name, content, what))

    @property
    def _written_in_this_boot(self) -> bool:
        return self.state.written_boot_id in ("", self.report.structure.boot_id)

    def _swept(self) -> Chain:
        """The chain as it is written here: what was not flushed before a kill in this boot is kept."""
        boot_id = self.report.structure.boot_id
        return attrs.evolve(self.chain, swept_boot_id=boot_id) if self._written_in_this_boot else self.chain

    def say_behind(self, last_copy: bool) -> None:
        state = attrs.evolve(
            self.state,
            told_equal=self.state.told_equal and last_copy,
            written_boot_id=REPAIRED if self._written_in_this_boot else self.state.written_boot_id,
        )
        if state == self.state:
            return
        chain = self._swept()
        unflushed = self.state.written_boot_id == self.report.structure.boot_id
        recorded = self.source is ChainSource.CHAIN_FILE and bool(self.chain.parent_of(HEAD))
        if recorded and unflushed and chain != self.chain:
            self._replace(CHAIN_FILE, encode_chain(chain), "what was written in this boot stays")
        self._replace(STATE_FILE, encode_state(state), "this replica is behind, until it was compared")

    def finish_renames(self) -> None:
        for old, new in self.chain.renames:
            if old in self.listing:
                self._put_aside(new)
                self.steps.append(Rename(old, new))

    def write_chain(self, mended: list[Finding]) -> None:
        """Also where there was none: files may be larger than the volume if there is one."""
        kinds = {each.kind for each in mended}
        if kinds & {finding.CHAIN_DAMAGED, finding.CHAIN_MISSING, finding.TOO_LONG}:
            self._put_aside(CHAIN_FILE)
            self.steps.append(Write(CHAIN_FILE, encode_chain(self._swept()), "the layers that there are"))

    def write_metas(self) -> None:
        """What Jiva and Longhorn read; and away with those that would keep the replica from starting."""
        if self.source is ChainSource.HEAD_ALONE:  # they are the truth there, and good
            return
        wanted = self.chain.metas(self.state.size_bytes)
        for name in self.listing.files:
            if name.endswith(META_SUFFIX) and name not in wanted and not self._is_harmless(name):
                self._put_aside(name)
        for name, content in wanted.items():
            if name not in self.listing or self.listing[name].content != content:
                self._put_aside(name)
                self.steps.append(Write(name, content, "what Jiva and Longhorn read"))

    def _is_harmless(self, name: str) -> bool:
        """Whether the replica starts with this .meta file that belongs to no layer."""
        content = self.listing[name].content
        if content is None:
            return False
        if self.source is ChainSource.CHAIN_FILE:
            return True
        try:
            DiskMeta.decode(name.removesuffix(META_SUFFIX), content)
        except ConfigError:
            return False
        return True

    def make_sums(self, mended: list[Finding]) -> None:
        size_bytes = -(-self.state.size_bytes // BLOCK_BYTES) * SUM_BYTES
        names = dict(self.chain.renames)
        for each in mended:
            if each.kind is finding.SUMS_LOST:
                file = names.get(each.subject, each.subject)
                if each.subject in self.listing and self.listing[each.subject].error:
                    self.steps.append(PutAside(file, self._kept(file)))
                self.steps.append(MakeSums(file, size_bytes))
