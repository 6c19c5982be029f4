"""The replica's health and metrics over HTTP (port 9503): read only."""

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva import __version__
from pyjiva.block import OPERATIONS
from pyjiva.replica.api_document import replica_document
from pyjiva.replica.daemon_io import ReplicaDaemon
from pyjiva.snapshot import ChainDevice
from pyjiva.transport.bearer import Token
from pyjiva.transport.exposition import Distribution, histogram
from pyjiva.transport.http_io import document_route, http_application, metrics_route, serve_http
from pyjiva.transport.query import flag
from pyjiva.transport.tls_sys import Tls

__all__ = ["ReplicaCollector", "health_application", "serve_health"]


class ReplicaCollector(Collector):
    """Reads the counters at the moment of the scrape."""

    def __init__(self, daemon: ReplicaDaemon, device: ChainDevice) -> None:
        self._daemon = daemon
        self._device = device

    def collect(self) -> list[Metric]:
        """Every metric of this replica."""
        done, state = self._device.statistics(), self._daemon.statistics()
        counters = {
            "reads": ("READ requests", done.reads),
            "read_bytes": ("bytes read", done.read_bytes),
            "reads_missed": ("READ requests that the page cache could not answer", done.reads_missed),
            "writes": ("WRITE requests", done.writes),
            "written_bytes": ("bytes written", done.written_bytes),
            "zeroed_bytes": ("bytes unmapped or zeroed", done.zeroed_bytes),
            "flushes": ("fdatasync calls", done.flushes),
            "flush_seconds": ("seconds in fdatasync", done.flush_s),
            "received_bytes": ("bytes received on data connections, headers included", state.received_bytes),
            "shared_bytes": ("bytes written out of memory that the controller shares", state.shared_bytes),
            "merged_bytes": ("bytes copied to give back the space of deleted snapshots", state.merged_bytes),
        }
        gauges = {
            "in_sync": ("1 when the last membership record names this replica", int(state.in_sync)),
            "attached": ("1 while a controller is connected", int(state.attached)),
            "promised_epoch": ("highest epoch promised", state.promised_epoch),
            "disk_requests_waiting": ("requests queued for a disk thread or in one", done.waiting),
            "oldest_disk_operation_seconds": (
                "age of the oldest disk operation under way",
                self._device.oldest_operation_s(),
            ),
        }
        if (space := self._device.space) is not None:
            gauges["used_bytes"] = ("what the replica takes on its disk", space.used_bytes)
            gauges["available_bytes"] = ("what its file system has left", space.available_bytes)
        metrics: list[Metric] = [
            CounterMetricFamily(f"pyjiva_replica_{name}", text, value=value)
            for name, (text, value) in counters.items()
        ]
        metrics += [
            GaugeMetricFamily(f"pyjiva_replica_{name}", text, value=value)
            for name, (text, value) in gauges.items()
        ]
        metrics.append(
            histogram(
                "pyjiva_replica_disk_seconds",
                "how long a disk thread had requests that the page cache could not answer in place",
                ("operation",),
                [
                    Distribution((OPERATIONS[verb],), times.cumulative(), times.total_s)
                    for verb, times in self._device.disk_times.items()
                ],
            )
        )
        return metrics


async def serve_health(
    daemon: ReplicaDaemon,
    device: ChainDevice,
    host: str,
    port: int,
    *,
    token: Token | None = None,
    tls: Tls | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `health_application` until cancelled; reports the port.  Raises ConfigError: see `serve_http`."""
    app = health_application(daemon, device)
    await serve_http(app, host, port, token=token, tls=tls, task_status=task_status)


def health_application(daemon: ReplicaDaemon, device: ChainDevice) -> Starlette:
    """What is served."""

    async def health(request: Request) -> Response:
        state = daemon.statistics()
        asked = flag(request.query_params, "in-sync")
        good = (state.attached and state.in_sync) or not asked
        return JSONResponse(
            {
                "attached": state.attached,
                "in_sync": state.in_sync,
                "promised_epoch": state.promised_epoch,
                "oldest_disk_operation_s": device.oldest_operation_s(),
            },
            status_code=200 if good else 503,
        )

    return http_application(
        [
            Route("/v1/health", health),
            metrics_route(ReplicaCollector(daemon, device)),
            document_route(replica_document(__version__)),
        ]
    )
