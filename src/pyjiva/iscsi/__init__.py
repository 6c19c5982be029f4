"""An iSCSI target (RFC 7143) over the SCSI device server."""

from pyjiva.iscsi.session import SessionStatus
from pyjiva.iscsi.target_io import Target, TargetOptions, open_portal, portal_address, serve_portal

__all__ = ["SessionStatus", "Target", "TargetOptions", "open_portal", "portal_address", "serve_portal"]
