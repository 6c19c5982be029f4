"""Objects as dictionaries, for tests: the least that the API server takes, and what a test adds."""

from typing import Any

from tests.kube.api import Object

__all__ = ["config_map", "container", "deployment", "job", "pod", "secret", "service", "shell"]


def _meta(name: str, namespace: str, labels: dict[str, str] | None = None) -> Object:
    return {"name": name, "namespace": namespace, "labels": labels or {}}


def container(name: str = "main", *command: str, image: str = "busybox", **fields: Any) -> Object:
    """One that runs a command."""
    return {"name": name, "image": image, "command": list(command), **fields}


def shell(script: str, name: str = "main", **fields: Any) -> Object:
    """One that runs a script."""
    return container(name, "sh", "-c", script, **fields)


def pod(namespace: str, name: str, *containers: Object, **spec: Any) -> Object:
    """With a grace of a second, as process 1 of a container ignores SIGTERM unless it says otherwise."""
    meta = _meta(name, namespace, {"app": name})
    fields = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": fields}


def deployment(namespace: str, name: str, replicas: int, *containers: Object, **spec: Any) -> Object:
    """Of pods labelled `app=NAME`."""
    made = pod(namespace, name, *containers, **spec)
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": made["spec"]}
    fields = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(name, namespace), "spec": fields}


def job(namespace: str, name: str, *containers: Object, **spec: Any) -> Object:
    """That runs once, and again when it fails."""
    template = pod(namespace, name, *containers, restartPolicy="Never", **spec)["spec"]
    fields = {"backoffLimit": 4, "template": {"spec": template}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _meta(name, namespace), "spec": fields}


def service(namespace: str, name: str, port: int, target: int | str) -> Object:
    """For pods labelled `app=NAME`."""
    fields = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(name, namespace), "spec": fields}


def config_map(namespace: str, name: str, **data: str) -> Object:
    """Text by name."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(name, namespace), "data": data}


def secret(namespace: str, name: str, **data: str) -> Object:
    """Text by name."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(name, namespace), "stringData": data}
