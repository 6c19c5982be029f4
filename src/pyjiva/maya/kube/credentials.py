"""Which API server, and as whom: what stands in kubeconfig files.  Pure.

Of several files the first that names a thing says what it is (`kubectl config` documents this).  Read here:
certificates, tokens, files of tokens, and commands that print a token.  Not done: passwords and
`auth-provider` (Kubernetes has given up both), certificates from commands.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["Access", "KubeConfig", "Material", "TokenCommand", "access_of"]

COMMAND_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@attrs.frozen
class Material:
    """A key or certificates as PEM: themselves, or in a file; neither: there are none."""

    data: bytes = attrs.field(default=b"", repr=False)
    file: str = ""

    def __bool__(self) -> bool:
        return bool(self.data or self.file)


@attrs.frozen
class TokenCommand:
    """A program that prints an ExecCredential."""

    api_version: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    advice: str = ""
    """What to do if there is no such program."""


@attrs.frozen
class Access:
    """One API server, and who asks it."""

    server: str
    """Its URL."""
    namespace: str = "default"
    authority: Material = attrs.field(factory=Material)
    """Who may sign the server's certificate; none: those that the system trusts."""
    insecure: bool = False
    """Whether the server's certificate is not looked at."""
    server_name: str = ""
    """That of its certificate; "": as in `server`."""
    proxy: str = ""
    certificate: Material = attrs.field(factory=Material)
    key: Material = attrs.field(factory=Material)
    token: str = attrs.field(default="", repr=False)
    token_file: str = ""
    """Read anew for each request: tokens of pods change every hour."""
    token_command: TokenCommand | None = None


@attrs.frozen
class KubeConfig:
    """One file's content."""

    path: str
    value: Mapping[str, Any] = attrs.field(repr=False)


def access_of(configs: Sequence[KubeConfig], context: str = "") -> Access:
    """What the files say of `context`; "": of their current one.

    Raises ConfigError: they do not say enough, or something that is not done here.
    """
    if not context:
        named = (config.value.get("current-context") for config in configs)
        context = next((name for name in named if name), "")
    if not context:
        raise ConfigError(f"{_paths(configs)}: no current-context: choose one (kubectl config use-context)")
    _, chosen = _find(configs, "contexts", "context", context)
    of_cluster, cluster = _find(configs, "clusters", "cluster", chosen.get("cluster"))
    of_user, user = _find(configs, "users", "user", chosen.get("user"))
    if not cluster.get("server"):
        raise ConfigError(f"{of_cluster.path}: cluster {chosen['cluster']!r} has no server")
    for name in ("username", "password", "auth-provider"):
        if name in user:
            raise ConfigError(
                f"{of_user.path}: user {chosen['user']!r}: {name} is not supported: use a token"
            )
    return Access(
        server=cluster["server"],
        namespace=chosen.get("namespace") or "default",
        authority=_material(of_cluster, cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_name=cluster.get("tls-server-name") or "",
        proxy=cluster.get("proxy-url") or "",
        certificate=_material(of_user, user, "client-certificate"),
        key=_material(of_user, user, "client-key"),
        token=user.get("token") or "",
        token_file=_beside(of_user, user.get("tokenFile") or ""),
        token_command=_command(of_user, user.get("exec")),
    )


def _find(
    configs: Sequence[KubeConfig], plural: str, kind: str, name: str | None
) -> tuple[KubeConfig, Mapping[str, Any]]:
    for config in configs:
        for entry in config.value.get(plural) or []:
            if entry.get("name") == name:
                return config, entry.get(kind) or {}
    raise ConfigError(f"{_paths(configs)}: there is no {kind} {name!r}")


def _paths(configs: Sequence[KubeConfig]) -> str:
    return ":".join(config.path for config in configs)


def _material(config: KubeConfig, entry: Mapping[str, Any], name: str) -> Material:
    """Data goes before the file, as with kubectl."""
    if text := entry.get(f"{name}-data"):
        try:
            return Material(data=base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ConfigError(f"{config.path}: {name}-data is not base64") from error
    return Material(file=_beside(config, entry.get(name) or ""))


def _beside(config: KubeConfig, name: str) -> str:
    """A path in a kubeconfig counts from the folder of that file."""
    return str(PurePosixPath(config.path).parent / name) if name else ""


def _command(config: KubeConfig, value: Mapping[str, Any] | None) -> TokenCommand | None:
    if not value:
        return None
    version = str(value.get("apiVersion"))
    if version not in COMMAND_VERSIONS:
        raise ConfigError(
            f"{config.path}: exec: {version} is not supported: {' or '.join(COMMAND_VERSIONS)} is"
        )
    command = str(value.get("command") or "")
    if "/" in command:
        command = _beside(config, command)
    environment = {one["name"]: one["value"] for one in value.get("env") or []}
    advice = str(value.get("installHint") or "")
    return TokenCommand(version, (command, *(value.get("args") or [])), environment, advice)
