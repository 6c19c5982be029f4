"""The provisioner's health and metrics over HTTP, for kubelets and Prometheus."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.transport.http_io import http_application, metrics_route

__all__ = ["ProvisionerMetrics", "health_application"]

#: Seconds from the claim to its PersistentVolume.
BUCKETS_S = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class ProvisionerMetrics(Collector):
    """Under the names of the library that OpenEBS' provisioner was made with (external-storage lib)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        prefix, labels = "persistentvolumeclaim_provision", ("class",)
        self.provisioned = Counter(
            f"{prefix}_total", "claims that a volume was made for", labels, registry=self._registry
        )
        self.failed = Counter(
            f"{prefix}_failed_total",
            "answers that a claim cannot have a volume",
            labels,
            registry=self._registry,
        )
        self.seconds = Histogram(
            f"{prefix}_duration_seconds",
            "from the claim to its PersistentVolume",
            labels,
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.deleted = Counter(
            "persistentvolume_delete_total", "volumes that were deleted", labels, registry=self._registry
        )

    def collect(self) -> Iterable[object]:  # type: ignore[override]
        """All of them."""
        return self._registry.collect()

    def samples(self) -> Iterator[Sample]:
        """For tests."""
        for metric in self._registry.collect():
            yield from metric.samples


def health_application(metrics: ProvisionerMetrics) -> Starlette:
    """`/healthz` and `/v1/health`: the event loop answers; whether this process has the Lease makes no
    difference.  `/metrics`.
    """

    async def health(_: Request) -> Response:
        return JSONResponse({"ready": True})

    return http_application([Route("/healthz", health), Route("/v1/health", health), metrics_route(metrics)])
