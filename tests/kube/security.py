"""As whom a container runs: the securityContext of the pod and of the container, put together.  Pure."""

from typing import Final

from tests.kube.api import Object
from tests.kube.contents import NotReady
from tests.kube.images import Image
from tests.kube.sandbox import DEFAULT_CAPABILITIES, Identity

__all__ = ["identity_of"]

ALL: Final = frozenset({"ALL"})


def identity_of(spec: Object, container: Object, image: Image) -> Identity:
    """Raises NotReady: it was not to be root and would be."""
    pods, own = spec.get("securityContext", {}), container.get("securityContext", {})
    both = {**pods, **own}
    user = both.get("runAsUser", image.user)
    if both.get("runAsNonRoot") and user == 0:
        detail = "container has runAsNonRoot and image will run as root"
        raise NotReady("CreateContainerConfigError", detail)
    groups = [*pods.get("supplementalGroups", [])]
    if "fsGroup" in pods:
        groups.append(pods["fsGroup"])
    wanted = own.get("capabilities", {})
    added, dropped = set(wanted.get("add", [])), set(wanted.get("drop", []))
    kept = frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    return Identity(
        user=user,
        group=both.get("runAsGroup", 0),
        groups=tuple(groups),
        capabilities=ALL if "ALL" in added else kept | added,
        privileged=own.get("privileged", False),
        may_gain=own.get("allowPrivilegeEscalation", True),
    )
