"""What Maya was started with, as far as it shapes the objects of volumes.  Pure."""

import attrs

__all__ = ["Settings"]


@attrs.frozen
class Settings:
    """The same for all volumes."""

    namespace: str = "openebs"
    """Maya's own."""
    all_namespaces: bool = False
    """Whether volumes' pods may be in others."""
    image: str = "pyjiva"
    """Has every program; policies may name others."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    version: str = ""
    user_id: int = 65532
    """User and group that the daemons run as."""
    listen_host: str = "0.0.0.0"
    """Inside pods; [::] where pods have IPv6 addresses alone."""
    min_copies: int | None = None
    """None: the controller's default."""
