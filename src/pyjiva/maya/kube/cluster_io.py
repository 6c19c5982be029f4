"""A real API server, over HTTP.

Requests are answered within REQUEST_S or fail.  A watch lasts until the server ends it, WATCH_S at the
most; a connection on which nothing comes for SILENCE_S is given up: the server sends bookmarks every
minute.  A peer that is gone is noticed earlier, by the kernel (KEEP_ALIVE).

Why httpx and not a library for Kubernetes: docs/decisions/0016-kubernetes-client.md.
"""

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import httpx
import structlog
import trio

from pyjiva import __version__
from pyjiva.errors import ConfigError
from pyjiva.maya.kube.answer import error_of, is_of_object, read_event, read_object
from pyjiva.maya.kube.cluster import Conflict, Gone, KubeError, Listing, Object, WatchEvent
from pyjiva.maya.kube.credentials import Access
from pyjiva.maya.kube.credentials_sys import make_ssl_context
from pyjiva.maya.kube.http_client_io import exhaust, leave_nothing
from pyjiva.maya.kube.names import check_names
from pyjiva.maya.kube.resource import Resource
from pyjiva.maya.kube.token_io import TokenAuth

__all__ = ["FIELD_MANAGER", "KubeCluster", "open_cluster"]

FIELD_MANAGER: Final = "pyjiva-maya"
REQUEST_S: Final = 30.0
WATCH_S: Final = 300
SILENCE_S: Final = 150.0  # two bookmarks that did not come
PAGE: Final = 500  # objects of one answer to a list, as client-go
BUSY_TRIES: Final = 3  # when the server says that it has too much to do, and when to come again
BUSY_S_MAX: Final = 10.0
WARNINGS_MAX: Final = 100  # different ones that are logged, each once

#: 30 s after the last sign of life the kernel asks, and gives up 30 s later.
KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_JSON: Final = "application/json"

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_cluster(access: Access, *, manager: str = FIELD_MANAGER) -> AsyncIterator["KubeCluster"]:
    """The API server, for as long as this lasts.  Raises ConfigError: certificates or keys are no good."""
    context = make_ssl_context(access)
    transport = httpx.AsyncHTTPTransport(
        verify=context,
        # No number of idle ones: httpcore 1.0.9 counts those in use too, and closes the connection of each
        # request as soon as there are as many watches.  They end when they were idle for five seconds.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        socket_options=KEEP_ALIVE,
        proxy=access.proxy or None,
    )
    async with httpx.AsyncClient(
        base_url=access.server,
        auth=TokenAuth(access),
        transport=transport,
        timeout=REQUEST_S,
        headers={"User-Agent": f"{manager}/{__version__}", "Accept": _JSON},
        event_hooks={"request": [leave_nothing]},
    ) as client:
        yield KubeCluster(client, manager, access.server_name)


@attrs.define(eq=False)
class KubeCluster:
    """`Cluster` over HTTP."""

    _client: httpx.AsyncClient
    manager: str = FIELD_MANAGER
    _server_name: str = ""
    _warned: set[str] = attrs.field(factory=set, init=False)

    # --- the verbs

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """As Cluster's."""
        path = _path(resource, namespace, name)
        answer = await self._send("get", self._request("GET", path))
        if answer.status_code == httpx.codes.NOT_FOUND and is_of_object(answer.content):
            return None
        return self._object("get", answer)

    async def list(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Listing:
        """As Cluster's."""
        try:
            return await self._pages(resource, namespace, labels, PAGE)
        except Gone:  # the server has forgotten what the first page was of: everything at once
            return await self._pages(resource, namespace, labels, 0)

    async def _pages(
        self, resource: Resource, namespace: str, labels: Mapping[str, str] | None, limit: int
    ) -> Listing:
        items: list[Object] = []
        parameters = _selector(labels) | ({"limit": str(limit)} if limit else {})
        while True:
            request = self._request("GET", resource.path(namespace), parameters)
            answer = self._object("list", await self._send("list", request))
            # Items of a list do not say what they are.
            items += [_whole(resource, item) for item in answer.get("items") or []]
            metadata = answer.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(tuple(items), str(metadata.get("resourceVersion") or ""))
            parameters["continue"] = metadata["continue"]

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        since: str,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """As Cluster's."""
        parameters = _selector(labels) | {"resourceVersion": since, "timeoutSeconds": str(WATCH_S)}
        parameters |= {"watch": "1", "allowWatchBookmarks": "true"}
        request = self._request("GET", resource.path(namespace), parameters, timeout=SILENCE_S)
        what = f"watch {request.url.path}"
        answer = await self._exchange(what, request, stream=True)
        try:
            if not answer.is_success:
                raise error_of(what, answer.status_code, await answer.aread())
            lines = answer.aiter_lines()
            try:
                yield _Watch(what, lines)
            finally:
                await answer.aclose()
                await exhaust(lines)
        finally:
            await answer.aclose()

    async def create(self, resource: Resource, value: Object) -> Object:
        """As Cluster's."""
        namespace = value["metadata"].get("namespace", "")
        check_names(resource, namespace, "", generated=True)
        path = resource.path(namespace)
        request = self._request("POST", path, {"fieldManager": self.manager}, body=_whole(resource, value))
        return self._object("create", await self._send("create", request))

    async def apply(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """As Cluster's."""
        parameters = {"fieldManager": self.manager, "force": "true"}
        path = _path_of(resource, value, subresource)
        body = _whole(resource, value)
        request = self._request("PATCH", path, parameters, body=body, content_type=_APPLY)
        return self._object("apply", await self._send("apply", request))

    async def update(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """As Cluster's."""
        path = _path_of(resource, value, subresource)
        request = self._request("PUT", path, {"fieldManager": self.manager}, body=_whole(resource, value))
        return self._object("update", await self._send("update", request))

    async def merge(
        self, resource: Resource, namespace: str, name: str, change: Object, *, subresource: str = ""
    ) -> Object:
        """As Cluster's."""
        path = _path(resource, namespace, name, subresource)
        parameters = {"fieldManager": self.manager}
        request = self._request("PATCH", path, parameters, body=change, content_type=_MERGE)
        return self._object("merge", await self._send("merge", request))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """As Cluster's."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        path = _path(resource, namespace, name)
        answer = await self._send("delete", self._request("DELETE", path, body=options))
        if answer.status_code == httpx.codes.NOT_FOUND and is_of_object(answer.content):
            return False
        try:
            self._object("delete", answer)
        except Conflict:
            if uid:
                return False
            raise
        return True

    # --- what each of them goes through

    def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        *,
        body: Object | None = None,
        content_type: str = _JSON,
        timeout: float = REQUEST_S,
    ) -> httpx.Request:
        return self._client.build_request(
            method,
            path,
            params=parameters or {},
            content=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"Content-Type": content_type},
            timeout=httpx.Timeout(REQUEST_S, read=timeout),
            extensions={"sni_hostname": self._server_name} if self._server_name else {},
        )

    async def _send(self, verb: str, request: httpx.Request) -> httpx.Response:
        """The whole answer, after a while if the server is too busy at first."""
        what = f"{verb} {request.url.path}"
        for _ in range(BUSY_TRIES - 1):
            answer = await self._exchange(what, request)
            wait_s = _busy_s(answer)
            if wait_s is None:
                return answer
            await trio.sleep(wait_s)
        return await self._exchange(what, request)

    async def _exchange(self, what: str, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """The answer, or with `stream` its beginning."""
        try:
            with trio.fail_after(REQUEST_S):
                answer = await self._client.send(request, stream=stream)
        except trio.TooSlowError as error:
            raise KubeError(f"{what}: no answer within {REQUEST_S:g} s") from error
        except httpx.HTTPError as error:
            raise KubeError(f"{what}: {request.url.host} cannot be asked: {_reason(error)}") from error
        except ConfigError as error:  # there is no token
            raise KubeError(f"{what}: {error}", status=401, reason="Unauthorized") from error
        for warning in answer.headers.get_list("warning"):
            if warning not in self._warned and len(self._warned) < WARNINGS_MAX:
                self._warned.add(warning)
                _log.warning("the API server warns", request=what, warning=warning)
        return answer

    def _object(self, verb: str, answer: httpx.Response) -> Object:
        what = f"{verb} {answer.request.url.path}"
        if not answer.is_success:
            raise error_of(what, answer.status_code, answer.content)
        return read_object(what, answer.content)


@attrs.define(eq=False)
class _Watch:
    """The events of one watch."""

    what: str
    lines: AsyncIterator[str]

    def __aiter__(self) -> "_Watch":
        return self

    async def __anext__(self) -> WatchEvent:
        try:
            line = await anext(self.lines)
        except httpx.ReadTimeout as error:
            raise KubeError(f"{self.what}: nothing was heard for {SILENCE_S:g} s") from error
        except httpx.HTTPError as error:
            raise KubeError(f"{self.what}: broken off: {_reason(error)}") from error
        return read_event(self.what, line)


def _reason(error: BaseException) -> str:
    """What went wrong below, where httpx does not say: TLS, say."""
    below: BaseException | None = error
    while below is not None:
        if text := str(below):
            return text
        below = below.__cause__ or below.__context__
    return type(error).__name__


def _busy_s(answer: httpx.Response) -> float | None:
    """After how long the server asks us to come again; None: it does not."""
    if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
        return None
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), BUSY_S_MAX) if asked.isdecimal() else None


def _selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    chosen = ",".join(f"{key}={text}" for key, text in (labels or {}).items())
    return {"labelSelector": chosen} if chosen else {}


def _whole(resource: Resource, value: Object) -> Object:
    """With what it is."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **value}


def _path_of(resource: Resource, value: Object, subresource: str) -> str:
    metadata = value["metadata"]
    return _path(resource, metadata.get("namespace", ""), metadata.get("name", ""), subresource)


def _path(resource: Resource, namespace: str, name: str, subresource: str = "") -> str:
    check_names(resource, namespace, name)
    return resource.path(namespace, name, subresource)
