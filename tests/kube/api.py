"""A small client of the Kubernetes API: objects are dictionaries, as JSON has them; lists can be followed.

It knows no schema and caches nothing.  It is not the client of the product, so that a mistake of that is not
made twice.  Documentation: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from pyjiva.maya.kube.http_client_io import exhaust, leave_nothing

__all__ = [
    "CONFIG_MAPS",
    "ENDPOINT_SLICES",
    "LEASES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "Access",
    "Api",
    "ApiError",
    "Kind",
    "Mirror",
    "Object",
    "key_of",
]

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, name

REQUEST_S: Final = 30.0
WATCH_S: Final = 240  # the server ends a watch after so long; we then go on from where it was
AGAIN_S: Final = 0.2  # after the server could not be reached
MERGE: Final = "application/merge-patch+json"
STRATEGIC_MERGE: Final = "application/strategic-merge-patch+json"


@attrs.frozen
class Kind:
    """Where objects of a kind are: `api/v1` and `pods`."""

    group: str
    plural: str

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """The path of all, of a namespace's, of one, or of a part of one such as its `status`."""
        scope = ("namespaces", namespace) if namespace else ()
        return "/" + "/".join(word for word in (self.group, *scope, self.plural, name, part) if word)


CONFIG_MAPS: Final = Kind("api/v1", "configmaps")
ENDPOINT_SLICES: Final = Kind("apis/discovery.k8s.io/v1", "endpointslices")
LEASES: Final = Kind("apis/coordination.k8s.io/v1", "leases")
NODES: Final = Kind("api/v1", "nodes")
PODS: Final = Kind("api/v1", "pods")
SECRETS: Final = Kind("api/v1", "secrets")
SERVICES: Final = Kind("api/v1", "services")
SERVICE_ACCOUNTS: Final = Kind("api/v1", "serviceaccounts")


@attrs.frozen
class Access:
    """Which server, and as whom: with a certificate or with a token."""

    server: str
    authority: Path
    certificate: Path | None = None
    key: Path | None = None
    token: str = ""

    def kubeconfig(self) -> Object:
        """The same for kubectl, Helm and others."""
        user: Object = {"token": self.token} if self.token else {}
        if self.certificate is not None:
            user = {"client-certificate": str(self.certificate), "client-key": str(self.key)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "tests",
                    "cluster": {"server": self.server, "certificate-authority": str(self.authority)},
                }
            ],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
            "current-context": "tests",
        }


class ApiError(Exception):
    """The server refused."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


def key_of(thing: Object) -> Key:
    """Namespace and name."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


class Api:
    """Requests as somebody.  To be used within `async with`."""

    def __init__(self, access: Access) -> None:
        context = ssl.create_default_context(cafile=str(access.authority))
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        # Many objects are followed at the same time, each on a connection of its own.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(
            base_url=access.server,
            verify=context,
            headers=headers,
            timeout=REQUEST_S,
            limits=limits,
            event_hooks={"request": [leave_nothing]},
        )

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def request(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """The answer's JSON, or its text if it is none.  Raises ApiError, httpx.TransportError."""
        headers = {"Content-Type": options.pop("content_type", "application/json")}
        content = None if body is None else json.dumps(body)
        answer = await self._client.request(method, path, content=content, headers=headers, **options)
        _check(answer)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json else answer.text

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object.  Raises ApiError: it is not there, or not for us."""
        found: Object = await self.request("GET", kind.path(namespace, name))
        return found

    async def list(self, kind: Kind, namespace: str = "", **selectors: str) -> Object:
        """All objects of a kind, with the version of the whole list."""
        found: Object = await self.request("GET", kind.path(namespace), params=selectors)
        return found

    async def create(self, kind: Kind, thing: Object, name: str = "", part: str = "") -> Object:
        """Make an object in the namespace that it names; or a part of one, as the `token` of an account."""
        namespace = thing["metadata"].get("namespace", "")
        made: Object = await self.request("POST", kind.path(namespace, name, part), thing)
        return made

    async def patch(
        self, kind: Kind, key: Key, change: Object, *, part: str = "", strategic: bool = False
    ) -> Object:
        """Change an object; `strategic`: lists of things with a name are merged by it."""
        content_type = STRATEGIC_MERGE if strategic else MERGE
        path = kind.path(*key, part)
        changed: Object = await self.request("PATCH", path, change, content_type=content_type)
        return changed

    async def delete(self, kind: Kind, key: Key, options: Mapping[str, Any] | None = None) -> None:
        """Ask for the end of an object; it need not be there."""
        try:
            await self.request("DELETE", kind.path(*key), dict(options or {}))
        except ApiError as error:
            if error.status != 404:
                raise

    async def watch(self, kind: Kind, version: str, each: Callable[[str, Object], None]) -> str:
        """Hand every change since `version` to `each`, until the server ends it; the version then.

        Raises ApiError with status 410: `version` is too old, list again.
        """
        parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_S)}
        parameters["allowWatchBookmarks"] = "true"
        request = {"params": parameters, "timeout": httpx.Timeout(REQUEST_S, read=WATCH_S + REQUEST_S)}
        async with self._client.stream("GET", kind.path(), **request) as answer:  # type: ignore[arg-type]
            if answer.status_code != 200:
                await answer.aread()
            _check(answer)
            lines = answer.aiter_lines()
            try:
                async for line in lines:
                    event = json.loads(line)
                    thing = event["object"]
                    if event["type"] == "ERROR":
                        raise ApiError(thing["code"], thing.get("reason", ""), thing.get("message", ""))
                    version = thing["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        each(event["type"], thing)
            finally:
                await answer.aclose()
                await exhaust(lines)
        return version


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        status = answer.json()
    except ValueError:
        status = {"message": answer.text}
    raise ApiError(answer.status_code, status.get("reason", ""), status.get("message", ""))


@attrs.define(eq=False)
class Mirror:
    """All objects of a kind, followed: what a controller knows of the cluster, a little late."""

    kind: Kind
    changed: Callable[[Object, bool], None]
    """Called with an object that is new or changed, or with the last that was known of one and True: it is
    gone."""
    objects: dict[Key, Object] = attrs.field(factory=dict)

    async def run(self, api: Api, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow for ever; started when the first list is there."""
        while True:
            try:
                version = await self._list(api)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                while True:
                    version = await api.watch(self.kind, version, self._each)
            except ApiError as error:
                if error.status not in (410, 429, 500, 503, 504):
                    raise
                await trio.sleep(AGAIN_S)
            except httpx.TransportError:
                await trio.sleep(AGAIN_S)

    async def _list(self, api: Api) -> str:
        found = await api.list(self.kind)
        now = {key_of(thing): thing for thing in found["items"]}
        for key in [key for key in self.objects if key not in now]:
            self._each("DELETED", self.objects[key])
        for thing in now.values():
            self._each("MODIFIED", thing)
        version: str = found["metadata"]["resourceVersion"]
        return version

    def _each(self, happened: str, thing: Object) -> None:
        key = key_of(thing)
        known = self.objects.get(key)
        if happened == "DELETED":
            self.objects.pop(key, None)
            self.changed(thing, True)
            return
        if known is not None and known["metadata"]["uid"] != thing["metadata"]["uid"]:
            self.changed(known, True)  # made anew under its name while we did not look
        self.objects[key] = thing
        if known is None or known["metadata"]["resourceVersion"] != thing["metadata"]["resourceVersion"]:
            self.changed(thing, False)
