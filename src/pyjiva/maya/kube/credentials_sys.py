"""Where credentials lie: kubeconfig files, or the folder that every pod is given."""

import os
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import yaml

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.credentials import Access, KubeConfig, Material, access_of

__all__ = ["load_access", "make_ssl_context", "read_token"]

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def load_access(
    kubeconfig: str = "",
    context: str = "",
    *,
    environment: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """The API server to use: of `kubeconfig`, of KUBECONFIG, of ~/.kube/config, or of the pod that this
    runs in.

    The first of these that is there counts.  Raises ConfigError: none is, or it cannot be used.
    """
    named = kubeconfig or environment.get("KUBECONFIG", "")
    home = Path(environment.get("HOME", "/"), ".kube/config")
    files = [Path(path) for path in named.split(":") if path] if named else [home]
    there = [file for file in files if file.exists()]
    if there:
        return access_of([_read_config(file) for file in there], context)
    if named:
        raise ConfigError(f"kubeconfig {named} is not there")
    if "KUBERNETES_SERVICE_HOST" in environment and service_account.is_dir():
        return _of_pod(environment, service_account)
    raise ConfigError(
        f"no Kubernetes to talk to: this is no pod with a service account, {home} is not there, and neither "
        "--kubeconfig nor KUBECONFIG names a file"
    )


def _read_config(file: Path) -> KubeConfig:
    try:
        value = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"kubeconfig {file} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} is no kubeconfig")
    return KubeConfig(str(file.absolute()), value)


def _of_pod(environment: Mapping[str, str], folder: Path) -> Access:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError as error:
        raise ConfigError(f"the pod's service account cannot be read: {error}") from error
    return Access(
        server=f"https://{host}:{port}",
        namespace=namespace,
        authority=Material(file=str(folder / "ca.crt")),
        token_file=str(folder / "token"),
    )


def read_token(file: str) -> str:
    """Raises ConfigError: it cannot be read, or nothing is in it."""
    try:
        token = Path(file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"the token cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"{file} holds no token")
    return token


def make_ssl_context(access: Access) -> ssl.SSLContext:
    """Whom to trust, and with what to prove who we are.  Raises ConfigError: they cannot be used."""
    try:
        authority = access.authority.data or (
            access.authority.file and Path(access.authority.file).read_bytes()
        )
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if access.certificate:
            with ExitStack() as stack:
                files = [_as_file(stack, material) for material in (access.certificate, access.key)]
                context.load_cert_chain(*files)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"certificates for {access.server} cannot be used: {error}") from error
    return context


def _as_file(stack: ExitStack, material: Material) -> str:
    """OpenSSL wants files: what is none becomes one that is in memory alone, as keys belong on no disk."""
    if not material.data:
        return material.file
    descriptor = os.memfd_create("key")
    stack.callback(os.close, descriptor)
    os.write(descriptor, material.data)
    return f"/proc/self/fd/{descriptor}"
