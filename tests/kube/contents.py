"""What a pod is told: environment variables and files from ConfigMaps, Secrets and the pod itself.

The rules are Kubernetes' (https://kubernetes.io/docs/concepts/configuration/), with `Sources` as the way to
the objects.  Left out: resourceFieldRef, and tokens that are made anew before they end.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from tests.kube.api import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Api, ApiError, Kind, Object

__all__ = ["File", "NotReady", "Sources", "expand"]

KINDS: Final[Mapping[str, Kind]] = {"configMap": CONFIG_MAPS, "secret": SECRETS}
REFERENCE: Final = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
TOKEN_S: Final = 3607  # what kubelet's volume of the default token asks for


class NotReady(Exception):
    """Something that the pod names is not there yet; `reason` is for its status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@attrs.frozen
class File:
    """A file of a volume."""

    data: bytes
    mode: int
    is_token: bool = False


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables for `$(NAME)`; `$$` is a dollar sign, and a name that is unknown is left as it is."""

    def one(found: re.Match[str]) -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    return REFERENCE.sub(one, text)


@attrs.frozen
class Sources:
    """The objects that a pod may name, and itself."""

    api: Api
    pod: Object
    """With the addresses in its status."""

    async def variables(self, container: Object, given: Mapping[str, str]) -> dict[str, str]:
        """A container's environment, beginning with what is `given`.  Raises NotReady."""
        found = dict(given)
        for source in container.get("envFrom", []):
            kind = "configMap" if "configMapRef" in source else "secret"
            data = await self._data(kind, source[f"{kind}Ref"], source[f"{kind}Ref"]["name"])
            found |= {source.get("prefix", "") + key: value.decode() for key, value in (data or {}).items()}
        for variable in container.get("env", []):
            if "valueFrom" not in variable:
                found[variable["name"]] = expand(variable.get("value", ""), found)
            elif (value := await self._value(variable["valueFrom"])) is not None:
                found[variable["name"]] = value
        return found

    async def _value(self, source: Object) -> str | None:
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        for kind in KINDS:
            if reference := source.get(f"{kind}KeyRef"):
                data = await self._data(kind, reference, reference["name"])
                if data is not None and reference["key"] in data:
                    return data[reference["key"]].decode()
                if not reference.get("optional"):
                    detail = f"couldn't find key {reference['key']} in {kind} {reference['name']}"
                    raise NotReady("CreateContainerConfigError", detail)
                return None
        raise NotReady("CreateContainerConfigError", f"pod runner: not supported: valueFrom {source}")

    def field(self, path: str) -> str:
        """What the downward API has for a field of the pod."""
        thing: Any = self.pod
        words = re.fullmatch(r"metadata\.(labels|annotations)\['(.*)'\]", path)
        if words:
            return str(thing["metadata"].get(words[1], {}).get(words[2], ""))
        for word in path.split("."):
            thing = thing.get(word, {})
        if isinstance(thing, list):  # status.podIPs
            return ",".join(address["ip"] for address in thing)
        if path in ("metadata.labels", "metadata.annotations"):
            return "\n".join(f'{key}="{value}"' for key, value in sorted(thing.items()))
        return str(thing or "")

    # --- files

    async def files(self, volume: Object) -> dict[str, File]:
        """Path → file of a volume of the kinds configMap, secret, downwardAPI and projected."""
        for kind in KINDS:
            if kind in volume:
                source = volume[kind]
                name = source.get("secretName" if kind == "secret" else "name", "")
                return await self._files_of(kind, name, source, source.get("defaultMode", 0o644))
        if "downwardAPI" in volume:
            source = volume["downwardAPI"]
            return self._fields(source, source.get("defaultMode", 0o644))
        found: dict[str, File] = {}
        mode = volume["projected"].get("defaultMode", 0o644)
        for source in volume["projected"].get("sources", []):
            if "serviceAccountToken" in source:
                wanted = source["serviceAccountToken"]
                found[wanted["path"]] = File((await self._token(wanted)).encode(), mode, is_token=True)
            elif "downwardAPI" in source:
                found |= self._fields(source["downwardAPI"], mode)
            else:
                [kind] = [kind for kind in KINDS if kind in source]
                found |= await self._files_of(kind, source[kind]["name"], source[kind], mode)
        return found

    def names(self, volume: Object) -> set[tuple[str, str]]:
        """(plural of the kind, name) of the objects that a volume shows."""
        sources = volume.get("projected", {}).get("sources", [volume])
        found = set()
        for source in sources:
            for kind in KINDS:
                if kind in source:
                    name = source[kind].get("secretName") or source[kind].get("name", "")
                    found.add((KINDS[kind].plural, name))
        return found

    async def _files_of(self, kind: str, name: str, source: Object, mode: int) -> dict[str, File]:
        data = await self._data(kind, source, name)
        if data is None:
            return {}
        if "items" not in source:
            return {key: File(value, mode) for key, value in data.items()}
        found = {}
        for item in source["items"]:
            if item["key"] in data:
                found[item["path"]] = File(data[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise NotReady("ContainerCreating", f"{kind} {name} has no key {item['key']}")
        return found

    def _fields(self, source: Object, mode: int) -> dict[str, File]:
        return {
            item["path"]: File(self.field(item["fieldRef"]["fieldPath"]).encode(), item.get("mode", mode))
            for item in source.get("items", [])
        }

    async def _data(self, kind: str, reference: Object, name: str) -> dict[str, bytes] | None:
        namespace = self.pod["metadata"]["namespace"]
        try:
            found = await self.api.get(KINDS[kind], namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise
            if reference.get("optional"):
                return None
            raise NotReady("CreateContainerConfigError", f'{kind.lower()} "{name}" not found') from error
        if kind == "secret":
            return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return binary | {key: value.encode() for key, value in (found.get("data") or {}).items()}

    async def _token(self, wanted: Object) -> str:
        meta = self.pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"expirationSeconds": wanted.get("expirationSeconds", TOKEN_S), "boundObjectRef": bound}
        if "audience" in wanted:
            spec["audiences"] = [wanted["audience"]]
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": meta["namespace"]},
            "spec": spec,
        }
        account = self.pod["spec"].get("serviceAccountName", "default")
        made = await self.api.create(SERVICE_ACCOUNTS, request, account, "token")
        token: str = made["status"]["token"]
        return token
