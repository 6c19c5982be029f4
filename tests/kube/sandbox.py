"""How a container's processes are shut in: the command line that starts them.  Pure.

    setpriv --pdeathsig      dies with the runner
     └ nsenter --net         the pod's network
        └ unshare sh         mounts, host name, IPC and process ids of its own; waits for its child, process 1
           └ sh SCRIPT       makes the root, mounts, then becomes `setpriv … env -i … COMMAND`

The root is an overlay over this machine's, so that what a container writes or mounts is seen by it alone.
What it does not get, as in an image: this machine's /dev, /tmp, /run, home folders and processes.

As in life the command is process 1 of its process namespace: a signal that it has no handler for does nothing
but SIGKILL.  Left out: user namespaces, cgroups and with them limits of resources, seccomp, AppArmor.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.kube.images import Image

__all__ = ["Identity", "Mount", "Sandbox"]

#: What containerd leaves root in a container (containerd `oci/spec.go`, as Docker before it).
DEFAULT_CAPABILITIES: Final = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
    | {"NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
#: Folders that a container has for itself, and their modes.
OWN: Final = {"/tmp": "1777", "/var/tmp": "1777", "/run": "755", "/root": "755", "/home": "755"}
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
#: Run the script as a child, end with its code.  `unshare --fork` would do, but that of util-linux 2.38 says
#: 1 for SIGKILL.  The shell's own word on how its child ended is not for the container's log: dash redirects
#: itself for a command that it waits for, so that is done in a subshell.
FORK: Final = 'exec 4>&2 2>/dev/null; (exec setpriv --pdeathsig=KILL sh -c "$1" 2>&4 4>&-); exit $?'
HOST_ROOT: Final = "/.host"  # while the container is set up


@attrs.frozen
class Mount:
    """A file or folder that a container sees at another place."""

    source: Path
    target: str
    read_only: bool


@attrs.frozen
class Identity:
    """As whom a container's processes run, and what they may do."""

    user: int
    group: int
    groups: tuple[int, ...] = ()
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    """Of root; others have none."""
    privileged: bool = False
    may_gain: bool = True
    """allowPrivilegeEscalation: programs with the set-user-id bit work."""

    def setpriv(self) -> list[str]:
        """The same for setpriv(1)."""
        command = ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--pdeathsig=KILL"]
        groups = sorted({*self.groups, self.group})
        command += [f"--groups={','.join(map(str, groups))}", "--inh-caps=-all"]
        if not self.privileged:
            kept = [f"+{name.lower()}" for name in sorted(self.capabilities)]  # "+all" is all
            command.append("--bounding-set=" + ",".join(["-all", *kept]))
        if not self.may_gain:
            command.append("--no-new-privs")
        return command


@attrs.frozen
class Sandbox:
    """One container, ready to be started."""

    command: tuple[str, ...]
    variables: Mapping[str, str]
    folder: str
    """workingDir."""
    identity: Identity
    mounts: tuple[Mount, ...]
    read_only: bool
    """readOnlyRootFilesystem."""
    image: Image
    host_name: str
    network: Path
    """The pod's network namespace, as a file of /proc."""
    scratch: Path
    """A folder for the root to be made in."""

    def start(self) -> list[str]:
        """The command line that starts it.

        When all is ready for the command it writes its process id, as seen from here, to the standard output;
        what the command writes goes to the standard error.
        """
        own = ("--mount", "--pid", "--uts", "--ipc")
        enter = ("nsenter", f"--net={self.network}")
        return ["setpriv", "--pdeathsig=KILL", *enter, "unshare", *own, "sh", "-c", FORK, "sh", self.script()]

    def execute(self, process: int, command: Sequence[str]) -> list[str]:
        """The command line for a further command in it, given its process 1 as seen from here."""
        spaces = ("--mount", "--pid", "--net", "--uts", "--ipc")
        enter = ("nsenter", f"--target={process}", *spaces, "--root", "--wd")
        return ["setpriv", "--pdeathsig=KILL", *enter, *self._become(command)]

    def script(self) -> str:
        """What is done inside before the command is."""
        lines = ["set -e", "read -r process rest </proc/self/stat", *self._root(), *self._devices()]
        lines += self._own_folders()
        for mount in sorted(self.mounts, key=lambda mount: mount.target.count("/")):
            lines += _bind(mount)
        lines.append(f"umount -l {HOST_ROOT}")
        lines.append(f"rmdir {HOST_ROOT}")
        if self.read_only:
            lines += [f"mount -o remount,bind,ro {folder}" for folder in ("/", *OWN)]
        lines.append("echo $process")
        lines.append(f"exec {shlex.join(self._become(self.command))} >&2")
        return "\n".join(lines)

    def _become(self, command: Sequence[str]) -> list[str]:
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        return [*self.identity.setpriv(), "--", "env", "-i", "-C", self.folder, "--", *variables, *command]

    def _root(self) -> list[str]:
        scratch = shlex.quote(str(self.scratch))
        return [
            # It goes with the container, and an upper layer cannot lie on an overlay, which our root may be.
            f"mount -t tmpfs -o mode=755 root {scratch}",
            f"cd {scratch}",
            "mkdir upper work root",
            "mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work root root",
            "cd root",
            f"mkdir .{HOST_ROOT}",
            f"pivot_root . .{HOST_ROOT}",
            "cd /",
            "mount -t proc proc /proc",
            f"mount -t sysfs -o {'rw' if self.identity.privileged else 'ro'} sysfs /sys",
            f"echo {shlex.quote(self.host_name)} >/proc/sys/kernel/hostname",
        ]

    def _devices(self) -> list[str]:
        if self.identity.privileged:
            return [f"mount --rbind {HOST_ROOT}/dev /dev"]
        lines = ["mount -t tmpfs -o mode=755,nosuid devices /dev", "mkdir /dev/shm"]
        lines.append("mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm")
        for name in DEVICES:
            lines.append(f"touch /dev/{name}; mount --bind {HOST_ROOT}/dev/{name} /dev/{name}")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            lines.append(f"ln -s /proc/self/fd/{number} /dev/{name}")
        lines.append("ln -s /proc/self/fd /dev/fd")
        return lines

    def _own_folders(self) -> list[str]:
        lines = [f"mount -t tmpfs -o mode={mode} own {folder}" for folder, mode in OWN.items()]
        for needed in self.image.needs:
            # An overlay shows one file system of this machine only, and ours now hide a part of it.
            if any(needed.is_relative_to(folder) for folder in OWN) or _is_elsewhere(needed):
                lines += _bind(Mount(needed, str(needed), read_only=True))
        return lines


def _is_elsewhere(folder: Path) -> bool:
    return os.stat(folder).st_dev != os.stat("/").st_dev


def _bind(mount: Mount) -> list[str]:
    source, target = shlex.quote(f"{HOST_ROOT}{mount.source}"), shlex.quote(mount.target)
    make = (
        f"if [ -d {source} ]; then mkdir -p {target}; else mkdir -p $(dirname {target}); touch {target}; fi"
    )
    lines = [f"[ -e {target} ] || {{ {make}; }}", f"mount --rbind {source} {target}"]
    if mount.read_only:
        lines.append(f"mount -o remount,bind,ro {target}")
    return lines
