"""Claims and volumes as Kubernetes' own controllers treat them, for `testing.kube_controllers`.

A volume that names a claim in `claimRef` is bound to it, if it is large enough and of its modes; no volume
is chosen among those that name none.  A claim that waits is told its class's provisioner, and the node that
its pod is to go to where the class waits for that.  When the claim is gone the volume is Released: who made
it has to delete it.
"""

from typing import Final

import attrs

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.quantity import parse_quantity
from pyjiva.maya.kube.resource import CLAIMS, PODS, PV, STORAGE_CLASSES
from pyjiva.testing.kube_kinds import PROTECTION
from pyjiva.testing.kube_store import Store

__all__ = ["ClaimController", "claims_of"]

PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
PROVISIONER_BEFORE: Final = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"


def claims_of(pod: Object) -> list[str]:
    """Names of the claims that a pod uses."""
    volumes = pod["spec"].get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


@attrs.define(eq=False)
class ClaimController:
    """Binds, releases and unprotects."""

    store: Store

    def step(self) -> None:
        """Do everything that is to be done now."""
        for claim in self.store.select(CLAIMS):
            self._claim(claim)
        for volume in self.store.select(PV):
            self._volume(volume)

    def is_bound(self, namespace: str, name: str) -> bool:
        """Whether pods with this claim may start."""
        claim = self.store.get(CLAIMS, namespace, name)
        return claim is not None and claim["status"].get("phase") == "Bound"

    def select_node(self, namespace: str, name: str, node: str) -> None:
        """A pod with this claim is to go to `node`: tell its provisioner, if the class waits for that."""
        claim = self.store.get(CLAIMS, namespace, name)
        if claim and claim["status"]["phase"] == "Pending" and self._waits(claim):
            self._annotate(claim, SELECTED_NODE, node)

    def _claim(self, claim: Object) -> None:
        metadata = claim["metadata"]
        if "deletionTimestamp" in metadata:
            self._unprotect_claim(claim)
            return
        name = claim["spec"].get("volumeName")
        volume = self.store.get(PV, "", name) if name else None
        if claim["status"]["phase"] == "Pending":
            volume = volume or self._meant_for(claim)
            if volume is not None:
                self._bind(claim, volume)
            else:
                self._ask(claim)
        elif claim["status"]["phase"] == "Bound" and volume is None:
            self._set_phase(claim, "Lost")

    def _meant_for(self, claim: Object) -> Object | None:
        metadata = claim["metadata"]
        for volume in self.store.select(PV):
            of = volume["spec"].get("claimRef") or {}
            same = (of.get("namespace"), of.get("name")) == (metadata["namespace"], metadata["name"])
            if same and of.get("uid", metadata["uid"]) == metadata["uid"] and _fits(volume, claim):
                return volume
        return None

    def _bind(self, claim: Object, volume: Object) -> None:
        metadata, name = claim["metadata"], volume["metadata"]["name"]
        of = volume["spec"].get("claimRef")
        if of and of.get("uid", metadata["uid"]) != metadata["uid"]:
            return  # another's: the claim waits
        reference = {"apiVersion": "v1", "kind": CLAIMS.kind, "uid": metadata["uid"]}
        reference |= {key: metadata[key] for key in ("name", "namespace")}
        self.store.merge(PV, "", name, {"spec": {"claimRef": reference}})
        self.store.merge(PV, "", name, {"status": {"phase": "Bound"}}, subresource="status")
        where = (metadata["namespace"], metadata["name"])
        self.store.merge(CLAIMS, *where, {"spec": {"volumeName": name}})
        status = {"phase": "Bound"} | {key: volume["spec"].get(key) for key in ("accessModes", "capacity")}
        self.store.merge(CLAIMS, *where, {"status": status}, subresource="status")

    def _ask(self, claim: Object) -> None:
        class_ = self.store.get(STORAGE_CLASSES, "", claim["spec"].get("storageClassName") or "")
        annotations = claim["metadata"].get("annotations") or {}
        if class_ and (not self._waits(claim) or SELECTED_NODE in annotations):
            for key in (PROVISIONER, PROVISIONER_BEFORE):
                self._annotate(claim, key, class_["provisioner"])

    def _waits(self, claim: Object) -> bool:
        class_ = self.store.get(STORAGE_CLASSES, "", claim["spec"].get("storageClassName") or "")
        return class_ is not None and class_["volumeBindingMode"] == "WaitForFirstConsumer"

    def _annotate(self, claim: Object, key: str, value: str) -> None:
        metadata = claim["metadata"]
        change = {"metadata": {"annotations": {key: value}}}
        self.store.merge(CLAIMS, metadata["namespace"], metadata["name"], change)

    def _set_phase(self, claim: Object, phase: str) -> None:
        metadata = claim["metadata"]
        change = {"status": {"phase": phase}}
        self.store.merge(CLAIMS, metadata["namespace"], metadata["name"], change, subresource="status")

    def _unprotect_claim(self, claim: Object) -> None:
        metadata = claim["metadata"]
        in_use = any(
            metadata["name"] in claims_of(pod) and pod["status"].get("phase") not in ("Succeeded", "Failed")
            for pod in self.store.select(PODS, metadata["namespace"])
        )
        finalizer = PROTECTION[CLAIMS.kind]
        if finalizer in metadata.get("finalizers", []) and not in_use:
            left = [one for one in metadata["finalizers"] if one != finalizer]
            change = {"metadata": {"finalizers": left}}
            self.store.merge(CLAIMS, metadata["namespace"], metadata["name"], change)

    def _volume(self, volume: Object) -> None:
        metadata, of = volume["metadata"], volume["spec"].get("claimRef")
        claim = self.store.get(CLAIMS, of["namespace"], of["name"]) if of else None
        phase = volume["status"].get("phase")
        if of is None or (claim is None and not of.get("uid")):
            phase = "Available"
        elif of.get("uid") and (claim is None or claim["metadata"]["uid"] != of["uid"]):
            phase = "Released"
        if phase != volume["status"].get("phase"):
            change = {"status": {"phase": phase}}
            self.store.merge(PV, "", metadata["name"], change, subresource="status")
        finalizer = PROTECTION[PV.kind]
        if "deletionTimestamp" in metadata and phase != "Bound" and finalizer in metadata["finalizers"]:
            left = [one for one in metadata["finalizers"] if one != finalizer]
            self.store.merge(PV, "", metadata["name"], {"metadata": {"finalizers": left}})


def _fits(volume: Object, claim: Object) -> bool:
    """Whether a volume that names the claim is what the claim wants; its class is not looked at."""
    has, wants = volume["spec"], claim["spec"]
    wanted = parse_quantity(wants["resources"]["requests"]["storage"])
    return (
        parse_quantity((has.get("capacity") or {}).get("storage", "0")) >= wanted
        and has["volumeMode"] == wants["volumeMode"]
        and set(wants.get("accessModes") or []) <= set(has.get("accessModes") or [])
    )
