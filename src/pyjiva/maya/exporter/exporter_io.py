"""Look at a controller when somebody looks at us, and serve what it says."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

import attrs
import httpx
import structlog
import trio
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.errors import RemoteProtocolError
from pyjiva.maya.exporter.exposition import Families, exposition, stats_json
from pyjiva.maya.exporter.scrape import (
    OF_REPLICA,
    Outcome,
    Scrape,
    Tally,
    figures_of,
    merged,
    read_metrics,
    replica_hosts,
    with_labels,
)
from pyjiva.transport.bearer import Token
from pyjiva.transport.exposition import BuildCollector
from pyjiva.transport.http_io import http_application

__all__ = ["ControllerClient", "Exporter", "exporter_application"]

_log = structlog.get_logger(__name__)

JSON_QUERY: Final = "format=json"
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024  # of a volume with 7 replicas the metrics are 100 KiB


@attrs.define(eq=False)
class ControllerClient:
    """A controller's API, as the exporter asks it."""

    url: str
    deadline_s: float
    """For a look at the controller, and then again for all its replicas together."""
    token: Token | None = None
    """Which the replicas ask for too."""
    tls: ssl.SSLContext | None = None
    replica_health_port: int | None = None
    """Of all replicas, to pass on what they say of themselves; None: they are not asked."""
    _client: httpx.AsyncClient = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={} if self.token is None else self.token.headers(),
            verify=True if self.tls is None else self.tls,
            trust_env=False,  # a proxy of the environment stands between here and the world
            timeout=None,  # the deadline is for all requests together
        )

    async def look(self) -> Scrape:
        """What it says now; never fails."""
        try:
            with trio.fail_after(self.deadline_s):
                volume = (await self._get("/v1/volume")).json()
                stats = (await self._get("/v1/stats")).json()
                metrics = (await self._get("/metrics")).text
            figures, passed_on = figures_of(volume, stats), read_metrics(metrics)
            if self.replica_health_port is None:
                return Scrape(Outcome.OK, "", figures, passed_on)
            hosts = replica_hosts(volume)
        except trio.TooSlowError:
            return Scrape(Outcome.TIMEOUT, f"no answer within {self.deadline_s:g} s")
        except httpx.HTTPStatusError as error:
            return Scrape(Outcome.REFUSED, f"{error.request.url.path}: {error.response.status_code}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Scrape(Outcome.UNREACHABLE, str(error) or type(error).__name__)
        except (RemoteProtocolError, ValueError) as error:
            return Scrape(Outcome.NOT_UNDERSTOOD, str(error))
        answers = await self._look_at_replicas(hosts, figures.volume)
        of_replicas = merged(family for each in answers.values() for family in each)
        replicas = {number: number in answers for number in hosts}
        return Scrape(Outcome.OK, "", figures, (*passed_on, *of_replicas), replicas)

    async def _look_at_replicas(self, hosts: Mapping[int, str], volume: str) -> dict[int, list[Metric]]:
        """What those say that answer in time."""
        answers: dict[int, list[Metric]] = {}
        scheme = httpx.URL(self.url).scheme

        async def ask(number: int, host: str) -> None:
            url = f"{scheme}://{host}:{self.replica_health_port}/metrics"
            try:
                found = read_metrics((await self._get(url)).text, OF_REPLICA)
            except (httpx.HTTPError, httpx.InvalidURL, RemoteProtocolError) as error:
                _log.debug("a replica does not answer", volume=volume, replica=number, reason=str(error))
            else:
                answers[number] = with_labels(found, {"volume": volume, "replica": str(number)})

        with trio.move_on_after(self.deadline_s):
            async with trio.open_nursery() as nursery:
                for number, host in hosts.items():
                    nursery.start_soon(ask, number, host)
        return answers

    async def _get(self, path: str) -> httpx.Response:
        """Raises HTTPStatusError: another status than 200; RemoteProtocolError: it is too long."""
        async with self._client.stream("GET", path) as answer:
            if answer.status_code != httpx.codes.OK:
                raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)
            body, length_bytes = bytearray(), 0
            async for chunk in answer.aiter_bytes():
                length_bytes += len(chunk)
                if length_bytes <= ANSWER_BYTES_MAX:
                    body += chunk  # the rest is read too, and dropped: httpx's generators have to end
            if length_bytes > ANSWER_BYTES_MAX:
                raise RemoteProtocolError(f"{path} has {length_bytes} bytes: at most {ANSWER_BYTES_MAX}")
        return httpx.Response(answer.status_code, content=bytes(body), headers=_plain(answer.headers))

    async def aclose(self) -> None:
        """Let its connections go."""
        await self._client.aclose()


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Those of a body that nothing is to be done to any more."""
    return {"Content-Type": headers.get("Content-Type", "")}


@attrs.define(eq=False)
class Exporter:
    """Looks at most once at a time: who comes meanwhile gets the same answer."""

    client: ControllerClient
    tally: Tally = attrs.field(factory=Tally)
    _under_way: trio.Event | None = attrs.field(default=None, init=False)
    _last: Scrape = attrs.field(default=Scrape(Outcome.UNREACHABLE, "not asked yet"), init=False)

    async def scrape(self) -> Scrape:
        """What a look brings that has not ended when this is called."""
        if self._under_way is not None:
            event, before = self._under_way, self._last
            await event.wait()
            if self._last is not before:
                return self._last
            return await self.scrape()  # whoever looked has gone away in the middle of it
        self._under_way = trio.Event()
        try:
            found = await self.client.look()
            if found.outcome is not self._last.outcome:
                log = _log.info if found.outcome is Outcome.OK else _log.warning
                log("the controller", outcome=found.outcome.value, reason=found.detail, url=self.client.url)
            self._last = found
            self.tally.add(found)
            return found
        finally:
            self._under_way.set()
            self._under_way = None


def exporter_application(exporter: Exporter, path: str, *, old_names: bool) -> Starlette:
    """`path`, with and without a slash at its end, and a page for probes."""

    async def get_metrics(request: Request) -> Response:
        scrape = await exporter.scrape()
        if request.url.query == JSON_QUERY:
            return JSONResponse(stats_json(scrape.figures, exporter.tally.errors()))
        registry = CollectorRegistry()
        registry.register(BuildCollector())
        registry.register(Families([*exposition(scrape, exporter.tally, old=old_names)]))
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def get_health(_: Request) -> Response:
        body: dict[str, Any] = {"ready": True}  # of the exporter: a controller that is away is a metric
        return JSONResponse(body)

    routes = [Route(each, get_metrics) for each in dict.fromkeys((path, path.rstrip("/") + "/"))]
    return http_application([*routes, Route("/v1/health", get_health)])
