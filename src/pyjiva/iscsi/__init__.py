"""An iSCSI target (RFC 7143) over the SCSI device server."""

from pyjiva.iscsi.access import InitiatorRules
from pyjiva.iscsi.chap import ChapSecrets, OwnSecret, check_separate, parse_secrets
from pyjiva.iscsi.session import SessionStatus
from pyjiva.iscsi.target_io import (
    Target,
    TargetOptions,
    open_portal,
    portal_address,
    serve_portal,
)

__all__ = [
    "ChapSecrets",
    "InitiatorRules",
    "OwnSecret",
    "SessionStatus",
    "Target",
    "TargetOptions",
    "check_separate",
    "open_portal",
    "parse_secrets",
    "portal_address",
    "serve_portal",
]
