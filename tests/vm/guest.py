"""A Linux machine in QEMU with the kernel's own iSCSI initiator, made from Debian's packages.

A small initramfs: busybox, the modules of Debian's cloud kernel, iscsid, iscsiadm and e2fsprogs with their
libraries.  Plain emulation, a user network.  The guest's 127.0.0.1 is routed to the host's, so a discovered
address works unchanged.  A test's script runs as the only program; what it prints is the result.
"""

import contextlib
import gzip
import lzma
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

__all__ = ["PROGRAMS", "Guest", "build_guest"]

#: Program → Debian package.
PROGRAMS: Final[dict[str, str]] = {
    "qemu-system-x86_64": "qemu-system-x86",
    "iscsid": "open-iscsi",
    "iscsiadm": "open-iscsi",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "fstrim": "util-linux",
    "sg_persist": "sg3-utils",
    "sg_vpd": "sg3-utils",
    "sg_readcap": "sg3-utils",
    "sg_logs": "sg3-utils",
    "sg_wr_mode": "sg3-utils",
    "cpio": "cpio",
    "ldd": "libc-bin",
}
#: Copied into the guest; busybox has the rest.
TOOLS: Final = (
    *("iscsid", "iscsiadm", "mke2fs", "e2fsck", "resize2fs", "dumpe2fs", "fstrim"),
    *("sg_persist", "sg_vpd", "sg_readcap", "sg_logs", "sg_wr_mode"),
)
KERNEL: Final = "linux-image-cloud-amd64"
#: In the order in which they are loaded; one that the kernel has built in is not found, and not needed.
MODULES: Final = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net", "crc32c_generic", "libcrc32c", "scsi_common", "scsi_mod"),
    *("scsi_transport_iscsi", "libiscsi", "libiscsi_tcp", "iscsi_tcp", "crct10dif_common", "crc-t10dif"),
    *("t10-pi", "sd_mod", "crc16", "mbcache", "jbd2", "ext4"),
)
SEARCH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
GUEST_MIB: Final = 512

INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/tools:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
while read module; do insmod /modules/$module; done < /modules/order
echo 16777216 > /proc/sys/net/core/rmem_max
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
ip route add 127.0.0.0/8 via 10.0.2.2 dev eth0 src 10.0.2.15
echo root:x:0:0:root:/:/bin/sh > /etc/passwd
mkdir -p /run/lock/iscsi
/tools/iscsid -f > /run/iscsid.log 2>&1 &
dmesg -n 1
echo SCRIPT-BEGINS
sh /script 2>&1
echo SCRIPT-ENDS
poweroff -f
"""
ISCSID: Final = """node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.conn[0].tcp.window_size = 268435456
"""


class Guest:
    """A kernel and an initramfs; every `run` boots one anew, several at a time if need be."""

    def __init__(self, kernel: Path, root: Path) -> None:
        self.kernel = kernel
        self.root = root
        self._lock = threading.Lock()
        self._runs = 0

    def run(
        self, script: str, *, timeout_s: float = 240, inside: Sequence[str] = (), console: Path | None = None
    ) -> str:
        """Boot, run `script` by sh, power off; what the script printed.

        `inside`: a command that QEMU is started by, such as one that enters a network namespace.
        `console`: the file that has what the machine printed so far, to be read while it runs.
        """
        with self._lock:
            initramfs = self._pack(script)
        try:
            return self._boot(initramfs, timeout_s, inside, console or initramfs.with_suffix(".console"))
        finally:
            initramfs.unlink()

    def _pack(self, script: str) -> Path:
        (self.root / "script").write_text(script)
        names = "\n".join(str(p.relative_to(self.root)) for p in sorted(self.root.rglob("*")))
        archive = subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet"],
            cwd=self.root,
            input=names.encode(),
            capture_output=True,
            check=True,
        )
        self._runs += 1
        initramfs = self.root.with_suffix(f".{self._runs}.gz")
        initramfs.write_bytes(gzip.compress(archive.stdout, 1))
        return initramfs

    def _boot(self, initramfs: Path, timeout_s: float, inside: Sequence[str], console: Path) -> str:
        command = [
            *inside,
            *("qemu-system-x86_64", "-accel", "tcg", "-m", str(GUEST_MIB), "-nographic", "-no-reboot"),
            *("-kernel", str(self.kernel), "-initrd", str(initramfs)),
            *("-append", "console=ttyS0 quiet panic=-1"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
        ]
        ended = f"not within {timeout_s:g} s"
        with console.open("wb") as printed, contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
            ended = f"QEMU ended with {done.returncode}"
        output = console.read_text(errors="replace").replace("\r", "")
        match = re.search(r"SCRIPT-BEGINS\n(.*)SCRIPT-ENDS", output, re.DOTALL)
        assert match is not None, f"the guest did not end its script ({ended}):\n{output[-4000:]}"
        return match[1]


def build_guest(work: Path) -> Guest:
    """The guest, its files under `work`.  Skips the test where a package is missing."""
    tools = {program: shutil.which(program, path=SEARCH) for program in PROGRAMS}
    missing = sorted({PROGRAMS[program] for program, path in tools.items() if path is None})
    if missing:
        pytest.skip(f"Debian package missing: {', '.join(missing)}")
    kernel, modules = _kernel(work)
    root = work / "root"
    for folder in ("bin", "tools", "modules", "etc/iscsi", "proc", "sys", "dev", "run", "tmp", "mnt"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _copy(str(tools["busybox"]), root / "bin/busybox")
    for program in TOOLS:
        path = str(tools[program])
        _copy(path, root / "tools" / program)
        for library in re.findall(r"/\S+", subprocess.check_output(["ldd", path], text=True)):
            _copy(library, root / library.lstrip("/"))
    (root / "modules/order").write_text(
        "".join(f"{name}\n" for name in _copy_modules(modules, root / "modules"))
    )
    (root / "etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.1993-08.org.debian:01:guest\n")
    (root / "etc/iscsi/iscsid.conf").write_text(ISCSID)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    return Guest(kernel, root)


def _copy(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _kernel(work: Path) -> tuple[Path, Path]:
    """Debian's cloud kernel and its modules: the installed one, or the package, unpacked and not
    installed.
    """
    for kernel in sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"), reverse=True):
        modules = Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return kernel, modules
    cache = Path(os.environ.get("PYJIVA_CACHE", Path(__file__).parents[2] / ".cache")) / "kernel"
    if not list(cache.glob("boot/vmlinuz-*")):
        _download_kernel(work, cache)
    kernel = next(cache.glob("boot/vmlinuz-*"))
    return kernel, next(cache.glob("**/modules/*"))


def _download_kernel(work: Path, cache: Path) -> None:
    depends = subprocess.run(
        ["apt-cache", "depends", KERNEL], capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if match is None:
        pytest.skip(f"Debian package missing: {KERNEL}")
    folder = work / "download"
    folder.mkdir()
    done = subprocess.run(
        ["apt-get", "download", match[1]], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"Debian package missing: {KERNEL} ({done.stderr.strip()[-200:]})")
    package = next(folder.glob("*.deb"))
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--extract", str(package), str(cache)], check=True)


def _copy_modules(modules: Path, target: Path) -> list[str]:
    copied = []
    for name in MODULES:
        found = next((p for p in modules.rglob(f"{name}.ko*")), None)
        if found is None:
            continue
        content = found.read_bytes()
        (target / f"{name}.ko").write_bytes(lzma.decompress(content) if found.suffix == ".xz" else content)
        copied.append(f"{name}.ko")
    return copied
