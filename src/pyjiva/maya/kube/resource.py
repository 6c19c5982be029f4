"""The kinds of Kubernetes objects that Maya reads and writes, with their places in the API.  Pure."""

from typing import Final

import attrs

__all__ = [
    "CLAIMS",
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "DISRUPTION_BUDGETS",
    "EVENTS",
    "JIVA_SNAPSHOTS",
    "JIVA_VOLUMES",
    "JOBS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PODS",
    "PV",
    "ROLES",
    "ROLE_BINDINGS",
    "SECRETS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "STORAGE_CLASSES",
    "Resource",
]


@attrs.frozen
class Resource:
    """One kind of object, as the API names it."""

    api_version: str
    """`v1`, or GROUP/VERSION."""
    kind: str
    plural: str
    """As it stands in paths."""
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; "" for the core's."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path on the API server of the collection, or of one object.

        `namespace`: "" for all namespaces, or where the kind has none.
        """
        base = "/apis" if self.group else "/api"
        parts = [base, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


PODS: Final = Resource("v1", "Pod", "pods")
SERVICES: Final = Resource("v1", "Service", "services")
SECRETS: Final = Resource("v1", "Secret", "secrets")
SERVICE_ACCOUNTS: Final = Resource("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps")
CLAIMS: Final = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENTS: Final = Resource("v1", "Event", "events")
PV: Final = Resource("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
NODES: Final = Resource("v1", "Node", "nodes", namespaced=False)
NAMESPACES: Final = Resource("v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENTS: Final = Resource("apps/v1", "Deployment", "deployments")
JOBS: Final = Resource("batch/v1", "Job", "jobs")
DISRUPTION_BUDGETS: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
STORAGE_CLASSES: Final = Resource("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
ROLES: Final = Resource("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
JIVA_VOLUMES: Final = Resource("openebs.io/v1", "JivaVolume", "jivavolumes")
JIVA_SNAPSHOTS: Final = Resource("openebs.io/v1", "JivaSnapshot", "jivasnapshots")
