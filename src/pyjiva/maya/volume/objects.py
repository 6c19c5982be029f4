"""The objects that make one volume run, as they are to be.  Pure.

    Secret V-secrets       what the daemons prove themselves with; made once, never changed
    Secret V-chap          what kubelets log in with, in the keys that they read
    Service V-ctrl-svc     iSCSI 3260, API 9501, exporter 9500: the address that initiators keep
    ConfigMap V-ctrl       the controller's configuration: changed without starting it again
    Deployment V-ctrl      the controller, with the exporter; evicted at once from a node that is away
    Service V-rep-N        the address of replica N, which the volume's records have
    Deployment V-rep-N     replica N, on the node that `placement` chose and on no other
    PodDisruptionBudget    a majority of the replicas in sync stays
    Job sjr-V-N            removes the data of replica N from its node
    … V-witness            the rights of a witness beside the controller (`witness_objects`)

All belong to the JivaVolume (owner reference), so nothing is left when that is gone.  Names, labels and
ports are Jiva's (maya pkg/install/v1alpha1/jiva_volume.go); why there is a Deployment and a Service for each
replica: docs/decisions/0018-maya.md.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.maya.policy.volume_policy import HOSTNAME, Resources, Toleration
from pyjiva.maya.volume.configuration import controller_toml
from pyjiva.maya.volume.jiva_volume import ISCSI_PORT, JivaVolume, ReplicaPlace
from pyjiva.maya.volume.labels import (
    CONTROLLER,
    GROUP,
    PERSISTENT_VOLUME,
    REPLICA,
    REPLICA_ID,
    chap_secret_name,
    claim_namespace,
    common_labels,
    controller_name,
    disruption_budget_name,
    replica_name,
    scrub_name,
    secrets_name,
    service_name,
)
from pyjiva.maya.volume.owned import kube_object, owned_metadata
from pyjiva.maya.volume.pods import container, http_probe, node_affinity, pod_spec, secret_volume, tolerations
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.witness_objects import (
    service_account_of,
    witness_beside,
    witness_container,
    witness_volumes,
)

__all__ = ["API_PORT", "CAPACITY", "DATA_PORT", "NEW_VOLUME", "VolumeObjects"]

API_PORT: Final = 9501
EXPORTER_PORT: Final = 9500
DATA_PORT: Final = 9502
HEALTH_PORT: Final = 9503
CAPACITY: Final = "openebs.io/capacity"
"""Annotation of a replica's Deployment: the size in bytes that it began with."""
NEW_VOLUME: Final = "new-volume"
"""Key of the ConfigMap, there until the volume is born."""

_AT_ONCE: Final = tuple(
    Toleration(key, "Exists", effect="NoExecute", toleration_seconds=0)
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
)
#: A replica goes nowhere: its data does not go with it.
_FOR_EVER: Final = tuple(
    Toleration(f"node.kubernetes.io/{key}", "Exists", effect="NoExecute")
    for key in (
        *("not-ready", "unreachable", "memory-pressure", "disk-pressure", "pid-pressure"),
        *("network-unavailable", "unschedulable", "out-of-service"),
    )
)


@attrs.frozen
class VolumeObjects:
    """Renders the objects of one volume."""

    volume: JivaVolume
    settings: Settings

    def _metadata(self, name: str, **more: Any) -> dict[str, Any]:
        return owned_metadata(self.volume, self.settings, name, **more)

    # --- secrets

    def secrets(self, *, key: str, token: str, chap: str, source_token: str) -> dict[str, Any]:
        """What the daemons have.

        `key` in hexadecimal digits; `chap`: a line of a file of secrets; `source_token`: of the volume that
        it is cloned from.  Empty: there is none.
        """
        data = {"volume.key": key, "api.token": token, "chap": chap, "source.token": source_token}
        data = {name: value for name, value in data.items() if value}
        return kube_object(
            "v1", "Secret", self._metadata(secrets_name(self.volume.name)), data=_encoded(data)
        )

    def chap_secret(self, user: str, password: str) -> dict[str, Any]:
        """What kubelets log in with (kubernetes pkg/volume/iscsi/iscsi_util.go)."""
        return kube_object(
            "v1",
            "Secret",
            self._metadata(chap_secret_name(self.volume.name)),
            type="kubernetes.io/iscsi-chap",
            data=_encoded({"node.session.auth.username": user, "node.session.auth.password": password}),
        )

    # --- the controller

    def controller_service(self) -> dict[str, Any]:
        """Where initiators and Maya find the controller, wherever it runs."""
        ports = {"iscsi": ISCSI_PORT, "api": API_PORT, "exporter": EXPORTER_PORT}
        return self._service(service_name(self.volume.name), dict([CONTROLLER]), ports)

    def _service(
        self, name: str, selector: dict[str, str], ports: Mapping[str, int], **spec: Any
    ) -> dict[str, Any]:
        return kube_object(
            "v1",
            "Service",
            self._metadata(name),
            spec={
                "selector": {PERSISTENT_VOLUME: self.volume.name, **selector},
                "ports": [
                    {"name": each, "port": number, "targetPort": number, "protocol": "TCP"}
                    for each, number in ports.items()
                ],
                **spec,
            },
        )

    def configuration(self, portal_host: str, fill_from: str) -> dict[str, Any]:
        """The controller's ConfigMap.  `fill_from`: URL of the snapshot that it is filled from; "": none."""
        data = {"controller.toml": controller_toml(self.volume, self.settings, portal_host, fill_from)}
        if not self.volume.status.born:
            data[NEW_VOLUME] = "true"
        return kube_object("v1", "ConfigMap", self._metadata(controller_name(self.volume.name)), data=data)

    def controller(self) -> dict[str, Any]:
        """The controller's Deployment."""
        policy, name = self.volume.spec.policy, controller_name(self.volume.name)
        containers = [self._controller_container(), *([self._exporter()] if policy.volume_monitor else [])]
        witness = witness_beside(self.volume)
        if witness is not None:
            containers.append(witness_container(self.volume, witness, self.settings))
        keys = ["volume.key", "api.token", *(["chap"] if policy.chap else [])]
        if self.volume.spec.source is not None:
            keys.append("source.token")
        spec = pod_spec(
            containers,
            [
                {"name": "configuration", "configMap": {"name": name, "items": [_item("controller.toml")]}},
                secret_volume("secrets", secrets_name(self.volume.name), keys),
                {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                *(witness_volumes(self.volume) if witness is not None else []),
            ],
            self.settings,
            nodeSelector=dict(policy.target_node_selector),
            tolerations=tolerations((*_AT_ONCE, *policy.target_tolerations)),
            affinity={"podAffinity": self._beside_replicas()},
            priorityClassName=policy.priority_class,
            serviceAccountName=policy.service_account if witness is None else service_account_of(self.volume),
            terminationGracePeriodSeconds=30,
        )
        return self._deployment(name, dict([CONTROLLER]), spec, self._scrape_annotations())

    def _scrape_annotations(self) -> dict[str, str]:
        if not self.volume.spec.policy.volume_monitor:
            return {}
        return {
            "prometheus.io/path": "/metrics",
            "prometheus.io/port": str(EXPORTER_PORT),
            "prometheus.io/scrape": "true",
        }

    def _beside_replicas(self) -> dict[str, Any]:
        """On a node with a replica, as reads cross no network there; with the pod that it is to be with."""
        term = {
            "labelSelector": {"matchLabels": {PERSISTENT_VOLUME: self.volume.name, **dict([REPLICA])}},
            "topologyKey": HOSTNAME,
        }
        made: dict[str, Any] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
        if self.volume.spec.policy.target_affinity:
            made["requiredDuringSchedulingIgnoredDuringExecution"] = [
                {
                    "labelSelector": {"matchLabels": dict(self.volume.spec.policy.target_affinity)},
                    "namespaces": [claim_namespace(self.volume)],
                    "topologyKey": HOSTNAME,
                }
            ]
        return made

    def _controller_container(self) -> dict[str, Any]:
        policy = self.volume.spec.policy
        environment = [
            {"name": "PYJIVA_LOG", "value": "json"},
            {
                "name": "PYJIVA_CONTROLLER_NEW_VOLUME",
                "valueFrom": {
                    "configMapKeyRef": {
                        "name": controller_name(self.volume.name),
                        "key": NEW_VOLUME,
                        "optional": True,
                    }
                },
            },
        ]
        return container(
            f"{self.volume.name}-ctrl-con",
            policy.controller_image or self.settings.image,
            # A controller that was fenced must not take the volume back when its container is started again.
            [
                *("pyjiva-controller", "--config", "/etc/pyjiva/controller.toml"),
                *("--fenced-file", "/run/pyjiva/fenced"),
            ],
            self.settings,
            resources=policy.target_resources,
            mounts={
                "configuration": "/etc/pyjiva:ro",
                "secrets": "/run/secrets/pyjiva:ro",
                "state": "/run/pyjiva",
            },
            ports={"iscsi": ISCSI_PORT, "api": API_PORT},
            env=environment,
            # Ready also while it waits for copies: it parks what hosts ask, and says why.  Not by
            # publishNotReadyAddresses: that would send every other connection to a pod on a node that died.
            readinessProbe=http_probe("/v1/health?live=1", API_PORT, period_s=2, failures=1),
            livenessProbe=http_probe("/v1/health?live=1", API_PORT, period_s=10, failures=6),
        )

    def _exporter(self) -> dict[str, Any]:
        policy = self.volume.spec.policy
        return container(
            "maya-volume-exporter",
            policy.monitor_image or self.settings.image,
            [
                *("pyjiva-maya", "exporter", "--controller.addr", f"http://127.0.0.1:{API_PORT}"),
                *("--api-token-file", "/run/secrets/pyjiva/api.token"),
                # Prometheus has no volume's token, and alerts look at replicas' disks.
                *("--replica-health-port", str(HEALTH_PORT)),
            ],
            self.settings,
            resources=policy.aux_resources,
            mounts={"secrets": "/run/secrets/pyjiva:ro"},
            ports={"exporter": EXPORTER_PORT},
        )

    # --- replicas

    def replica_service(self, replica_id: int) -> dict[str, Any]:
        """The address of a replica: it is in the volume's records, so it outlives every pod."""
        selector = dict([REPLICA]) | {REPLICA_ID: str(replica_id)}
        ports = {"data": DATA_PORT, "health": HEALTH_PORT}
        name = replica_name(self.volume.name, replica_id)
        # A replica that has not everything yet is not ready, and gets it through this address.
        return self._service(name, selector, ports, publishNotReadyAddresses=True)

    def replica(self, place: ReplicaPlace, hostname: str, size_bytes: int) -> dict[str, Any]:
        """A replica's Deployment, on the node whose label kubernetes.io/hostname is `hostname`."""
        policy, labels = self.volume.spec.policy, dict([REPLICA]) | {REPLICA_ID: str(place.id)}
        if policy.replica_anti_affinity_group:
            labels[GROUP] = policy.replica_anti_affinity_group
        data = {"name": "data", "hostPath": {"path": self.data_path(place.id), "type": "DirectoryOrCreate"}}
        kept = policy.eviction_tolerations if policy.eviction_tolerations is not None else _FOR_EVER
        spec = pod_spec(
            [self._replica_container(place, size_bytes)],
            [data, secret_volume("secrets", secrets_name(self.volume.name), ["volume.key", "api.token"])],
            self.settings,
            initContainers=[self._owner_container()],
            nodeSelector={**policy.replica_node_selector, HOSTNAME: hostname},
            tolerations=tolerations((*kept, *policy.replica_tolerations)),
            affinity=self._apart(),
            priorityClassName=policy.priority_class,
            serviceAccountName=policy.service_account,
            terminationGracePeriodSeconds=30,
        )
        annotations = {CAPACITY: str(size_bytes), "openebs.io/storage-pool": policy.pool_path}
        return self._deployment(
            replica_name(self.volume.name, place.id), labels, spec, {}, annotations=annotations
        )

    def data_path(self, replica_id: int) -> str:
        """On the node."""
        return f"{self.volume.spec.policy.pool_path}/{self.volume.name}/replica-{replica_id}"

    def _apart(self) -> dict[str, Any]:
        """No two members in one place, whoever chose it."""
        policy = self.volume.spec.policy
        apart = [{PERSISTENT_VOLUME: self.volume.name, **dict([REPLICA])}]
        if policy.replica_anti_affinity_group:
            apart.append({GROUP: policy.replica_anti_affinity_group})
        terms = [
            {"labelSelector": {"matchLabels": labels}, "topologyKey": policy.anti_affinity_topology_key}
            for labels in apart
        ]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        nodes = node_affinity(policy.node_affinity_required, policy.node_affinity_preferred)
        return {"podAntiAffinity": required} | ({"nodeAffinity": nodes} if nodes else {})

    def _owner_container(self) -> dict[str, Any]:
        """Kubelets make a hostPath for root: give it to the daemon.  The one thing that needs root."""
        user = self.settings.user_id
        made = container(
            "owner",
            self.volume.spec.policy.replica_image or self.settings.image,
            ["chown", f"{user}:{user}", "/openebs"],
            self.settings,
            resources=Resources(),
            mounts={"data": "/openebs"},
            ports={},
        )
        made["securityContext"] |= {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        }
        return made

    def _replica_container(self, place: ReplicaPlace, size_bytes: int) -> dict[str, Any]:
        spec, host = self.volume.spec, self.settings.listen_host
        command = [
            *("pyjiva-replica", "--volume", self.volume.name, "--volume-id", spec.volume_id),
            *("--replica-id", str(place.id), "--directory", "/openebs"),
            *("--size", str(size_bytes), "--block-size", str(spec.policy.block_size_bytes)),
            *("--data", f"{host}:{DATA_PORT}", "--health", f"{host}:{HEALTH_PORT}"),
            *("--key-file", "/run/secrets/pyjiva/volume.key"),
            *("--api-token-file", "/run/secrets/pyjiva/api.token"),
            *(["--witness"] if place.witness else []),
        ]
        # A budget that counts pods that run without everything would let the last good copy be evicted.
        health = "/v1/health" if place.witness else "/v1/health?in-sync=1"
        return container(
            f"{self.volume.name}-rep-con",
            spec.policy.replica_image or self.settings.image,
            command,
            self.settings,
            resources=spec.policy.replica_resources,
            mounts={"data": "/openebs", "secrets": "/run/secrets/pyjiva:ro"},
            ports={"data": DATA_PORT, "health": HEALTH_PORT},
            readinessProbe=http_probe(health, HEALTH_PORT, period_s=2, failures=1),
            livenessProbe=http_probe("/v1/health", HEALTH_PORT, period_s=10, failures=6),
        )

    # --- both

    def _deployment(
        self,
        name: str,
        labels: dict[str, str],
        spec: dict[str, Any],
        pod_annotations: dict[str, str],
        *,
        annotations: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        selector = {PERSISTENT_VOLUME: self.volume.name, **labels}
        pod_labels = common_labels(self.volume, "") | labels
        if pod_annotations:
            pod_labels["monitoring"] = "volume_exporter_prometheus"
        metadata: dict[str, Any] = {"labels": pod_labels}
        if pod_annotations:
            metadata["annotations"] = pod_annotations
        made = self._metadata(name, **({"annotations": annotations} if annotations else {}))
        made["labels"] |= labels
        return kube_object(
            "apps/v1",
            "Deployment",
            made,
            spec={
                "replicas": 1,
                "strategy": {"type": "Recreate"},  # never two of one, not even for a moment
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector},
                "template": {"metadata": metadata, "spec": spec},
            },
        )

    def disruption_budget(self, members: Sequence[ReplicaPlace]) -> dict[str, Any]:
        """Lets nodes be drained one after the other.  A witness beside the controller is where that is."""
        return kube_object(
            "policy/v1",
            "PodDisruptionBudget",
            self._metadata(disruption_budget_name(self.volume.name)),
            spec={
                "minAvailable": len(members) // 2 + 1 - sum(place.in_volume for place in members),
                "selector": {"matchLabels": {PERSISTENT_VOLUME: self.volume.name, **dict([REPLICA])}},
            },
        )

    def scrub(self, place: ReplicaPlace, hostname: str) -> dict[str, Any]:
        """Removes the data of a replica, and the volume's folder if it is empty then."""
        policy, name = self.volume.spec.policy, self.volume.name
        folder = f"/pool/{name}/replica-{place.id}"
        made = container(
            "scrub",
            policy.scrub_image or self.settings.image,
            # Another replica of the volume may still be in its folder, or may have been removed with it.
            ["sh", "-c", f"rm -rf {folder} && sync && rmdir /pool/{name} 2>/dev/null; test ! -e {folder}"],
            self.settings,
            resources=Resources(),
            mounts={"pool": "/pool"},
            ports={},
        )
        made["securityContext"] |= {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]},
        }
        spec = pod_spec(
            [made],
            [{"name": "pool", "hostPath": {"path": policy.pool_path, "type": "DirectoryOrCreate"}}],
            self.settings,
            restartPolicy="OnFailure",
            nodeSelector={HOSTNAME: hostname},
            tolerations=[{"operator": "Exists"}],
        )
        job_labels = common_labels(self.volume, "")
        return kube_object(
            "batch/v1",
            "Job",
            self._metadata(scrub_name(name, place.id)),
            spec={"backoffLimit": 4, "template": {"metadata": {"labels": job_labels}, "spec": spec}},
        )


def _item(key: str) -> dict[str, str]:
    return {"key": key, "path": key}


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    """As a Secret holds them."""
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
