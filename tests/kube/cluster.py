"""A real Kubernetes control plane in a network namespace: etcd, API server, controllers, scheduler.

There is no kubelet: nodes and what runs on them are `tests/kube/pod_runner.py`'s.  For tests:

    def test_something(cluster: Cluster, namespace: str) -> None:     # fixtures of tests/kube/conftest.py
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {…}, "data": {…}})
        cluster.kubectl("-n", namespace, "get", "configmap", "settings", "-o", "name")
        cluster.get("configmap", "settings", namespace)["data"]
        cluster.run(["iscsi-inq", …])                                 # any program, inside
        cluster.in_namespace(some_async_function, argument)           # trio in a thread that is inside

- `cluster.kubeconfig` is a file for the administrator (group system:masters), `kubeconfig_for(NAMESPACE,
  ACCOUNT)` makes one with a token of a service account, which may do what RBAC lets it do.
- `kubectl` and `run` fail the test if the program fails, with what it printed; `run(…, check=False)` does
  not.
- `access`, `access_for` and `tests.kube.api.Api` are the way for Python: `Api` is to be used inside, that is
  within `in_namespace`.
- `wait_for(KIND, NAME, NAMESPACE, condition, what)` asks until the object is as it should be.

One cluster serves all tests of a pytest worker, as its start takes seconds.  So a test keeps to a namespace
of its own, and takes away what it made that belongs to no namespace (storage classes, cluster roles).

The network inside, which nobody outside sees:

    10.96.0.0/16    addresses of services      10.244.0.1      the API server, port 6443
    10.244.0.0/24   addresses of nodes         10.244.N.x      pods of node N (pod_runner)

The first two ranges are local as a whole ("AnyIP"): a program inside may bind any address of them.
"""

import functools
import json
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import httpx
import pytest

from pyjiva.testing.certificates import Authority
from tests.kube.api import SERVICE_ACCOUNTS, Access, Api, ApiError, Object
from tests.kube.namespaces import ThreadOf, enter_network
from tests.kube.programs import assets, reason_not_to
from tests.real.machines import Machine, make_machine

__all__ = [
    "API_ADDRESS",
    "API_SERVICE",
    "SERVICE_RANGE",
    "Cluster",
    "Failed",
    "cluster_or_skip",
    "open_cluster",
]

SERVICE_RANGE: Final = "10.96.0.0/16"
NODE_RANGE: Final = "10.244.0.0/24"
API_ADDRESS: Final = "10.244.0.1"
API_PORT: Final = 6443
API_SERVICE: Final = "10.96.0.1"
ISSUER: Final = "https://kubernetes.default.svc"
START_S: Final = 120.0  # seconds are enough for a machine that does nothing else
GRACE_S: Final = 8  # a node that is silent for so long is not ready

Result = TypeVar("Result")


class Failed(AssertionError):
    """A program that had to succeed did not."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        super().__init__(f"{done.args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        self.done = done


@attrs.define(eq=False)
class Cluster:
    """A control plane that runs."""

    top: Path
    """Everything of it: logs, keys, kubeconfigs, etcd's data."""
    machine: Machine
    access: Access
    """As the administrator."""
    programs: "dict[str, subprocess.Popen[Any]]" = attrs.field(factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """As the administrator, for programs."""
        return self.top / "admin.kubeconfig"

    @property
    def network(self) -> Path:
        """The network namespace, as a file of /proc."""
        return Path(f"/proc/{self.machine.holder.pid}/ns/net")

    # --- programs

    def run(
        self,
        command: Sequence[str | Path],
        *,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        check: bool = True,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program inside, with kubectl and Helm on its PATH and KUBECONFIG set."""
        done = subprocess.run(
            self.machine.command(*map(str, command)),
            input=input or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(environment),
        )
        if check and done.returncode != 0:
            raise Failed(done)
        return done

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[Any]":
        """Start a program inside that ends with the cluster at the latest."""
        return self.machine.start(*map(str, command), env=self.environment(environment), **options)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What programs inside get."""
        return {
            **os.environ,
            "PATH": f"{assets()}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(
                self.top / "cache"
            ),  # else other clusters at this address would be remembered
            **{f"HELM_{name}_HOME": str(self.top / "helm") for name in ("CACHE", "CONFIG", "DATA")},
            **(more or {}),
        }

    def kubectl(
        self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None, timeout_s: float = 60
    ) -> str:
        """What kubectl printed; it must succeed."""
        more = {"KUBECONFIG": str(kubeconfig)} if kubeconfig is not None else None
        command = ["kubectl", *arguments]
        return self.run(command, input=input, environment=more, timeout_s=timeout_s).stdout

    def in_namespace(self, work: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
        """Run an async function under trio in a thread that is inside; what it returns or raises."""
        enter = functools.partial(enter_network, self.network)
        return ThreadOf("in-namespace", enter, work, *arguments).result()

    # --- objects

    def apply(self, *things: Object) -> None:
        """`kubectl apply` for objects."""
        self.kubectl(
            "apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)})
        )

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """An object, or None."""
        scope = ["-n", namespace] if namespace else []
        printed = self.kubectl(*scope, "get", kind, name, "-o", "json", "--ignore-not-found")
        found: Object | None = json.loads(printed) if printed else None
        return found

    def all(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """The objects of a kind, in a namespace or in none, with certain labels (`app=web`)."""
        scope = ["-n", namespace] if namespace else []
        found = json.loads(self.kubectl(*scope, "get", kind, "-l", selector, "-o", "json"))
        items: list[Object] = found["items"]
        return items

    def wait_for(
        self,
        kind: str,
        name: str,
        namespace: str,
        condition: Callable[[Object | None], Any],
        what: str,
        timeout_s: float = 60,
    ) -> Any:
        """Ask for an object until `condition` of it is true; its value.  None: it is not there."""
        deadline = time.monotonic() + timeout_s
        while True:
            thing = self.get(kind, name, namespace)
            if value := condition(thing):
                return value
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}: {json.dumps(thing)}"
            time.sleep(0.1)  # between two looks

    def access_for(self, namespace: str, account: str, life_s: int = 3600) -> Access:
        """As a service account, by a token of it."""
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": namespace},
            "spec": {"expirationSeconds": life_s},
        }

        async def ask() -> str:
            async with Api(self.access) as api:
                made = await api.create(SERVICE_ACCOUNTS, request, account, "token")
                token: str = made["status"]["token"]
                return token

        return Access(self.access.server, self.access.authority, token=self.in_namespace(ask))

    def kubeconfig_for(self, namespace: str, account: str) -> Path:
        """As a service account, for programs; the token is good for an hour."""
        file = self.top / f"{namespace}-{account}.kubeconfig"
        file.touch(0o600)
        file.write_text(json.dumps(self.access_for(namespace, account).kubeconfig()))
        return file

    # --- start

    def _start_program(self, name: str, *options: str) -> None:
        log = self.top / f"{name}.log"
        with log.open("ab") as output:
            self.programs[name] = self.start([name, *options], stdout=output, stderr=output)

    def _check_alive(self) -> None:
        for name, process in self.programs.items():
            if process.poll() is not None:
                log = (self.top / f"{name}.log").read_text(errors="replace")
                raise AssertionError(f"{name} ended with {process.returncode}:\n{log[-4000:]}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            self._check_alive()
            if time.monotonic() > deadline:
                logs = [
                    f"{name}:\n{(self.top / f'{name}.log').read_text()[-3000:]}" for name in self.programs
                ]
                raise AssertionError(f"not within {START_S:g} s: {what}\n" + "\n".join(logs))
            time.sleep(0.05)  # between two looks at programs that say nothing when they are ready


@contextmanager
def cluster_or_skip(top: Path) -> Iterator[Cluster]:
    """`open_cluster` for a test, which is skipped where there can be none."""
    if reason := reason_not_to():
        pytest.skip(reason)
    with open_cluster(top) as cluster:
        yield cluster


@contextmanager
def open_cluster(top: Path) -> Iterator[Cluster]:
    """Start a control plane that keeps its files in the folder `top`; it dies at the end, or with us.

    Raises AssertionError: a program did not start, with the end of its log.
    """
    top.chmod(0o700)  # keys
    with ExitStack() as stack:
        machine = make_machine("")
        stack.callback(machine.die)
        _set_up_network(machine)
        authority = Authority(top)
        admin = authority.sign("admin", organization="system:masters")
        server = f"https://{API_ADDRESS}:{API_PORT}"
        access = Access(server, admin.authority, admin.certificate, admin.key)
        cluster = Cluster(top, machine, access)
        cluster.kubeconfig.write_text(json.dumps(access.kubeconfig()))
        _start_etcd(cluster)
        _start_api_server(cluster, authority)
        cluster._wait(lambda: _answers(cluster, "/readyz"), "the API server is ready")
        _start_controllers(cluster)
        _start_scheduler(cluster)
        cluster._wait(
            lambda: _answers(cluster, "/api/v1/namespaces/default/serviceaccounts/default"),
            "the controllers have made the first service account",
        )
        yield cluster


def _set_up_network(machine: Machine) -> None:
    for arguments in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{API_ADDRESS}/32", "dev", "lo"),
        ("route", "add", "local", SERVICE_RANGE, "dev", "lo"),
        ("route", "add", "local", NODE_RANGE, "dev", "lo"),
    ):
        machine.run("ip", *arguments)


def _answers(cluster: Cluster, path: str) -> bool:
    async def ask() -> bool:
        async with Api(cluster.access) as api:
            await api.request("GET", path)
            return True

    try:
        return cluster.in_namespace(ask)
    except (ApiError, OSError, httpx.TransportError):
        return False


def _start_etcd(cluster: Cluster) -> None:
    # Its data need not outlive the cluster, so nothing is made sure.
    cluster._start_program(
        "etcd",
        f"--data-dir={cluster.top / 'etcd'}",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    )


def _start_api_server(cluster: Cluster, authority: Authority) -> None:
    server = authority.sign("kube-apiserver", API_ADDRESS, API_SERVICE, "127.0.0.1")
    accounts = authority.sign("service-accounts")
    cluster._start_program(
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--advertise-address={API_ADDRESS}",
        f"--cert-dir={cluster.top}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--client-ca-file={authority.file}",
        "--authorization-mode=Node,RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        "--allow-privileged=true",
    )


def _start_controllers(cluster: Cluster) -> None:
    cluster._start_program(
        "kube-controller-manager",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--service-account-private-key-file={cluster.top / 'service-accounts.key'}",
        f"--root-ca-file={cluster.access.authority}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        # A node that dies is noticed, and its pods are evicted, without the patience that life needs.
        f"--node-monitor-grace-period={GRACE_S}s",
        "--node-monitor-period=1s",
        "--node-eviction-rate=100",
        "--pvclaimbinder-sync-period=2s",
    )


def _start_scheduler(cluster: Cluster) -> None:
    settings = cluster.top / "scheduler.json"
    settings.write_text(
        json.dumps(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "clientConnection": {"kubeconfig": str(cluster.kubeconfig), "qps": 500, "burst": 1000},
                "leaderElection": {"leaderElect": False},
                "podInitialBackoffSeconds": 1,
                "podMaxBackoffSeconds": 1,
            }
        )
    )
    cluster._start_program("kube-scheduler", f"--config={settings}", "--secure-port=0")
