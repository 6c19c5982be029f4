"""The volumes of a pod as folders of this machine, with owners and modes as kubelet gives them.

Files from ConfigMaps and the like are changed all at once, by a link that is replaced, as kubelet does
(`pkg/volume/util/atomic_writer.go`): `..data` names the folder that counts.  Left out: sizes of emptyDir.
"""

import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.kube.api import Object
from tests.kube.contents import File, NotReady, Sources
from tests.kube.sandbox import Mount

__all__ = ["Volumes"]

FROM_OBJECTS: Final = ("configMap", "secret", "downwardAPI", "projected")
SET_GROUP_ID: Final = 0o2000
STICKY: Final = 0o1000
#: Type of a hostPath that has to be there → whether it is.
CHECKS: Final = {"Directory": os.path.isdir, "File": os.path.isfile}


@attrs.define(eq=False)
class Volumes:
    """The folders of one pod."""

    folder: Path
    memory: Path
    """The same on a file system in memory."""
    node: Path
    """The node's root, for hostPath."""
    spec: Object
    """The pod's."""
    _made: dict[str, Path] = attrs.field(factory=dict)
    _shown: dict[str, dict[str, File]] = attrs.field(factory=dict)

    async def prepare(self, sources: Sources) -> None:
        """Make what is not there.  Raises NotReady: something that the pod names is missing."""
        for volume in self.spec.get("volumes", []):
            if volume["name"] not in self._made:
                self._made[volume["name"]] = await self._prepare(volume, sources)

    async def refresh(self, sources: Sources, plural: str, name: str) -> None:
        """An object, or the pod itself (`pods`), has changed: show that.

        What is missing now stays as it was, as in life.
        """
        for volume in self.spec.get("volumes", []):
            fields = plural == "pods" and "downwardAPI" in str(volume)
            if volume["name"] in self._shown and (fields or (plural, name) in sources.names(volume)):
                before = self._shown[volume["name"]]
                files = await sources.files(volume)
                # Every token is new, which is no change that anybody waits for.
                tokens = {path: before.get(path, file) for path, file in files.items() if file.is_token}
                self._show(volume["name"], files | tokens)

    def mounts(self, container: Object) -> list[Mount]:
        """What a container sees, and where."""
        found = []
        for wanted in container.get("volumeMounts", []):
            source = self._made[wanted["name"]]
            if part := wanted.get("subPath"):
                source = source / part
                if not source.exists():
                    source.mkdir(parents=True)
                source = source.resolve()  # a file of a ConfigMap is a link
            read_only = wanted.get("readOnly", False) or wanted["name"] in self._shown
            found.append(Mount(source, wanted["mountPath"].rstrip("/") or "/", read_only))
        return found

    async def _prepare(self, volume: Object, sources: Sources) -> Path:
        name: str = volume["name"]
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        if "emptyDir" in volume:
            top = self.memory if volume["emptyDir"].get("medium") == "Memory" else self.folder
            place = top / name
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o777)
            self._give_to_group(place, writable=True)
            return place
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        # Kubelet makes them as emptyDirs, all but ConfigMaps' in memory: a tmpfs is sticky by itself.
        place.chmod(0o777 if "configMap" in volume else 0o777 | STICKY)
        self._show(name, await sources.files(volume))
        return place

    def _host_path(self, wanted: Object) -> Path:
        path, kind = str(wanted["path"]), wanted.get("type", "")
        place = self.node / path.lstrip("/")
        if kind in ("", "DirectoryOrCreate"):
            place.mkdir(parents=True, exist_ok=True)
        elif not CHECKS[kind](place):
            raise NotReady(
                "ContainerCreating", f"hostPath type check failed: {wanted['path']} is not a {kind}"
            )
        return place

    def _show(self, name: str, files: Mapping[str, File]) -> None:
        """Make the volume hold these files, from one moment to the next."""
        if self._shown.get(name) == files:
            return
        place = self.folder / name
        data, link = place / "..data", place / "..data_new"
        before = data.resolve() if data.is_symlink() else None
        version = place / f"..{uuid.uuid4().hex}"
        version.mkdir(0o755)
        for path, file in files.items():
            (version / path).parent.mkdir(parents=True, exist_ok=True)
            (version / path).write_bytes(file.data)
            self._give_file(version / path, file)
        self._give_to_group(version, writable=False)
        self._give(place, writable=False)
        link.symlink_to(version.name)
        link.rename(data)
        firsts = {path.split("/")[0] for path in files}
        for first in firsts:
            if not (place / first).is_symlink():
                (place / first).symlink_to(f"..data/{first}")
        for known in place.iterdir():
            if not known.name.startswith("..") and known.name not in firsts:
                known.unlink()
        if before is not None:
            shutil.rmtree(before)
        self._shown[name] = dict(files)

    def _give_file(self, place: Path, file: File) -> None:
        place.chmod(file.mode)
        if file.is_token and (owner := self._owner()) is not None:
            place.chmod(0o600)
            os.chown(place, owner, -1)

    def _owner(self) -> int | None:
        """The user of all containers, if they have one in common: who gets tokens."""
        users = {self._user_of(container) for container in self.spec["containers"]}
        return users.pop() if len(users) == 1 else None

    def _user_of(self, container: Object) -> int | None:
        pods = self.spec.get("securityContext", {}).get("runAsUser")
        user: int | None = container.get("securityContext", {}).get("runAsUser", pods)
        return user

    def _give_to_group(self, top: Path, *, writable: bool) -> None:
        """A folder with all that is in it."""
        for place in [top, *top.rglob("*")]:
            self._give(place, writable=writable)

    def _give(self, place: Path, *, writable: bool) -> None:
        """fsGroup: kubelet's `changeFilePermission` (pkg/volume/volume_linux.go)."""
        group = self.spec.get("securityContext", {}).get("fsGroup")
        if group is None:
            return
        os.chown(place, -1, group)
        more = 0o660 if writable else 0o440
        if place.is_dir():
            more |= 0o110 | SET_GROUP_ID
        place.chmod(stat.S_IMODE(place.stat().st_mode) | more)
