"""Backups of snapshots to a directory or to S3: incremental for ever, deduplicated, checked when restored."""

from pyjiva.backup.manifest import Manifest, check_id
from pyjiva.backup.pace import Pace, Progress
from pyjiva.backup.source import RestoreTarget, ResumableTarget, SnapshotSource

__all__ = ["Manifest", "Pace", "Progress", "RestoreTarget", "ResumableTarget", "SnapshotSource", "check_id"]
