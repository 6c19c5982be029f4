"""Which boot of this machine it is: what was written but not flushed before another boot may be gone."""

from pathlib import Path

from pyjiva.errors import ConfigError

__all__ = ["read_boot_id"]


def read_boot_id() -> str:
    """A random id that the kernel draws when it starts (random(4), /proc/sys/kernel/random/boot_id)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError as error:
        raise ConfigError(f"/proc/sys/kernel/random/boot_id cannot be read: {error.strerror}") from error
