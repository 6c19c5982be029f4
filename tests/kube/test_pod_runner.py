"""The pod runner: whether pods run here as they do on a node of Kubernetes."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import trio

from tests.kube.api import Object
from tests.kube.cluster import Cluster
from tests.kube.manifests import (
    config_map,
    container,
    deployment,
    job,
    pod,
    secret,
    service,
    shell,
)
from tests.kube.pod_runner import NodeSpec, PodRunner, open_pod_runner
from tests.real.volume_process import wait_until

pytestmark = pytest.mark.real

FOREVER: Final = "sleep 1000 & trap 'exit 0' TERM; wait"
SERVE: Final = "hostname >/tmp/index.html; exec python3 -m http.server -d /tmp 80"
FETCH: Final = (
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
)


@pytest.fixture(scope="module")
def runner(cluster: Cluster) -> Iterator[PodRunner]:
    """Two nodes."""
    nodes = NodeSpec("one", zone="east"), NodeSpec("two", zone="west", labels={"disk": "fast"})
    with open_pod_runner(cluster, *nodes) as runner:
        yield runner


class World:
    """A cluster, its nodes and a namespace, for one test."""

    def __init__(self, cluster: Cluster, runner: PodRunner, namespace: str) -> None:
        self.cluster, self.runner, self.namespace = cluster, runner, namespace

    def apply(self, *things: Object) -> None:
        self.cluster.apply(*things)

    def get(self, name: str) -> Object:
        found = self.cluster.get("pod", name, self.namespace)
        assert found is not None
        return found

    def pods(self, app: str) -> list[Object]:
        return self.cluster.all("pods", self.namespace, f"app={app}")

    def wait(self, name: str, condition: Callable[[Object], Any], what: str) -> Any:
        def holds(found: Object | None) -> Any:
            return found and found.get("status") and condition(found)

        return self.cluster.wait_for("pod", name, self.namespace, holds, what)

    def wait_ready(self, name: str) -> Object:
        self.wait(name, is_ready, f"{name} is ready")
        return self.get(name)

    def wait_state(self, name: str, state: str, reason: str) -> Object:
        """Until the first container is waiting or terminated for a reason; that state."""

        def holds(found: Object) -> Any:
            statuses = found["status"].get("containerStatuses") or [{}]
            is_so = statuses[0].get("state", {}).get(state, {})
            return is_so if is_so.get("reason") == reason else None

        found: Object = self.wait(name, holds, f"{name} is {state}: {reason}")
        return found

    def wait_end(self, name: str, phase: str = "Succeeded") -> str:
        """Until a pod has ended; what it printed."""
        self.wait(name, lambda found: found["status"]["phase"] == phase, f"{name} has {phase}")
        return self.logs(name)

    def logs(self, name: str, container: str = "") -> str:
        return self.runner.logs(self.namespace, name, container)

    def run(self, name: str, script: str, container_fields: Object | None = None, **spec: Any) -> str:
        """A pod that runs a script to its end; what it printed."""
        main = shell(script, **(container_fields or {}))
        self.apply(pod(self.namespace, name, main, restartPolicy="Never", **spec))
        return self.wait_end(name)

    def fetch(self, address: str, check: bool = True) -> str:
        """An HTTP request from inside the cluster's network."""
        done = self.cluster.run([sys.executable, "-c", FETCH, f"http://{address}/"], check=check)
        return done.stdout.strip() if done.returncode == 0 else done.stderr


@pytest.fixture
def world(cluster: Cluster, runner: PodRunner, namespace: str) -> World:
    """A namespace of its own."""
    return World(cluster, runner, namespace)


def is_ready(thing: Object) -> bool:
    conditions = thing.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def restarts(thing: Object) -> int:
    [status] = thing["status"]["containerStatuses"]
    count: int = status["restartCount"]
    return count


# --- services


def test_a_service_reaches_every_ready_pod_at_its_address(world: World) -> None:
    probe = {"httpGet": {"port": 80}, "periodSeconds": 1}
    main = shell(SERVE, readinessProbe=probe)
    world.apply(deployment(world.namespace, "web", 2, main), service(world.namespace, "web", 8080, 80))
    wait_until(lambda: sum(map(is_ready, world.pods("web"))) == 2, "two pods are ready")
    names = {found["metadata"]["name"] for found in world.pods("web")}
    found = world.cluster.get("service", "web", world.namespace)
    assert found is not None
    address = found["spec"]["clusterIP"]

    wait_until(
        lambda: {world.fetch(f"{address}:8080", check=False) for _ in range(4)} == names, "both answer"
    )
    own = world.pods("web")[0]["status"]["podIP"]
    assert world.fetch(f"{own}:80") in names
    from_a_pod = world.run("client", f"python3 -c '{FETCH}' http://{address}:8080/")
    assert from_a_pod.strip() in names

    world.cluster.kubectl("-n", world.namespace, "scale", "deployment/web", "--replicas=0")
    wait_until(lambda: "refused" in world.fetch(f"{address}:8080", check=False), "nobody is there")


def test_a_connection_to_a_pod_that_dies_is_reset(world: World) -> None:
    serve = (
        "import socket; s = socket.create_server(('', 7)); k = []\nwhile 1: k += s.accept(); k[-2].send(b'x')"
    )
    main = container("main", "python3", "-c", serve)
    world.apply(pod(world.namespace, "echo", main), service(world.namespace, "echo", 7, 7))
    world.wait_ready("echo")
    found = world.cluster.get("service", "echo", world.namespace)
    assert found is not None
    address = found["spec"]["clusterIP"]

    async def connect_and_lose() -> None:
        with trio.fail_after(30):
            while True:
                async with await trio.open_tcp_stream(address, 7) as stream:
                    if await stream.receive_some(1) == b"x":
                        node = world.get("echo")["spec"]["nodeName"]
                        await trio.to_thread.run_sync(world.runner.kill_node, node)
                        with pytest.raises(trio.BrokenResourceError) as lost:
                            await stream.receive_some(1)
                        assert isinstance(lost.value.__cause__, ConnectionResetError)
                        return

    wait_until(lambda: "refused" not in world.fetch(f"{address}:7", check=False), "the service has the pod")
    world.cluster.in_namespace(connect_and_lose)
    world.runner.revive_node(world.get("echo")["spec"]["nodeName"])


def test_a_connection_waits_for_a_pod_that_is_ready_but_does_not_answer(world: World) -> None:
    serve = 'import socket; s = socket.create_server(("", 7)); s.accept()[0].send(b"x"); s.accept()'
    main = shell(f"until [ -e /tmp/go ]; do sleep 0.1; done; exec python3 -c '{serve}'")
    world.apply(pod(world.namespace, "late", main), service(world.namespace, "late", 7, 7))
    world.wait_ready("late")
    found = world.cluster.get("service", "late", world.namespace)
    assert found is not None
    address = found["spec"]["clusterIP"]

    async def connect() -> trio.SocketStream:
        with trio.fail_after(30):
            while True:
                try:
                    return await trio.open_tcp_stream(address, 7)
                except OSError:  # the proxy does not know of the pod yet
                    await trio.sleep(0.1)

    async def wait() -> None:
        async with await connect() as stream:
            with trio.move_on_after(1) as waited:
                await stream.receive_some(1)
            assert waited.cancelled_caught
            await trio.to_thread.run_sync(world.runner.execute, world.namespace, "late", ["touch", "/tmp/go"])
            with trio.fail_after(30):
                assert await stream.receive_some(1) == b"x"

    world.cluster.in_namespace(wait)


# --- what containers are told


def test_a_container_gets_its_environment_from_all_sources(world: World) -> None:
    optional = {"configMapKeyRef": {"name": "nothing", "key": "x", "optional": True}}
    env = [
        {"name": "LITERAL", "value": "$(FROM_MAP_colour) $$(LITERAL) $(NOBODY)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "OPTIONAL", "valueFrom": optional},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    fields = {
        "env": env,
        "envFrom": [{"prefix": "FROM_MAP_", "configMapRef": {"name": "settings"}}],
        "args": ["$(LABEL)-argument"],
    }
    world.apply(
        config_map(world.namespace, "settings", colour="blue"),
        secret(world.namespace, "keys", password="hush"),
    )

    printed = world.run("told", 'env; echo "ARGUMENT=$0"; ip -4 -o addr show eth0', fields)

    known = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert known["LITERAL"] == "blue $(LITERAL) $(NOBODY)"
    assert known["SECRET"] == "hush"
    assert "OPTIONAL" not in known
    assert known["NODE"] in ("one", "two")
    assert known["ARGUMENT"] == "told-argument"
    assert known["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert known["POD_IP"] == world.get("told")["status"]["podIP"]
    assert f"inet {known['POD_IP']}/32" in printed


def test_a_pod_waits_for_what_it_names(world: World) -> None:
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "key"}}}]
    world.apply(pod(world.namespace, "patient", shell('echo "$KEY"', env=env), restartPolicy="Never"))

    waits = world.wait_state("patient", "waiting", "CreateContainerConfigError")
    assert waits["message"] == 'secret "late" not found'
    world.apply(secret(world.namespace, "late", key="here"))

    assert world.wait_end("patient") == "here\n"


def test_a_pod_may_do_at_the_api_what_its_service_account_may(world: World) -> None:
    ask = """
import ssl, urllib.error, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, space = (open(place + name).read() for name in ("token", "namespace"))
context = ssl.create_default_context(cafile=place + "ca.crt")
for path in ("/version", f"/api/v1/namespaces/{space}/secrets"):
    request = urllib.request.Request("https://10.96.0.1" + path, headers={"Authorization": "Bearer " + token})
    try:
        print(urllib.request.urlopen(request, context=context, timeout=10).status)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"""
    main = container("main", "python3", "-c", ask)
    world.apply(pod(world.namespace, "stranger", main, restartPolicy="Never"))

    printed = world.wait_end("stranger")

    assert printed.startswith("200\n403 ")
    assert f"system:serviceaccount:{world.namespace}:default" in printed


LOOK: Final = """
id -G
stat -L -c '%n %a %u %g' /keys /keys/password /keys/loose /maps /maps/colour /space
cat /keys/password /keys/loose /maps/colour >/dev/null && echo read
touch /space/made && stat -c '%u %g' /space/made
touch /keys/x /maps/x
"""


def test_files_are_readable_for_the_group_of_the_pod_and_follow_their_objects(world: World) -> None:
    items = [{"key": "password", "path": "password"}, {"key": "loose", "path": "loose", "mode": 0o604}]
    keys = {"secretName": "keys", "defaultMode": 0o400}
    volumes = [
        {"name": "keys", "secret": keys | {"items": items}},
        {"name": "all-keys", "secret": keys},
        {"name": "maps", "configMap": {"name": "maps"}},
        {"name": "late", "secret": {"secretName": "late", "optional": True}},
        {"name": "space", "emptyDir": {}},
    ]
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    mounts.append({"name": "maps", "mountPath": "/once", "subPath": "colour"})
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}}]
    main = shell(f"{LOOK}\n{FOREVER}", volumeMounts=mounts, env=env)
    world.apply(
        secret(world.namespace, "keys", password="hush", loose="x"),
        config_map(world.namespace, "maps", colour="blue", size="10"),
        pod(
            world.namespace,
            "group",
            main,
            volumes=volumes,
            securityContext={"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 3000},
        ),
    )
    world.wait_ready("group")
    wait_until(lambda: "/maps/x" in world.logs("group"), "it has looked")

    assert world.logs("group").splitlines() == [
        "1001 3000",
        # What a kubelet adds for the group: reading files, entering folders, and handing the group on.
        "/keys 3777 0 3000",
        "/keys/password 440 0 3000",
        "/keys/loose 644 0 3000",
        "/maps 2777 0 3000",
        "/maps/colour 644 0 3000",
        "/space 2777 0 3000",
        "read",
        "1000 3000",
        "touch: cannot touch '/keys/x': Read-only file system",
        "touch: cannot touch '/maps/x': Read-only file system",
    ]

    def printed(script: str) -> str:
        return str(world.runner.execute(world.namespace, "group", ["sh", "-c", script]).stdout)

    assert printed("ls /late /maps") == "/late:\n\n/maps:\ncolour\nsize\n"
    world.apply(
        secret(world.namespace, "keys", password="whisper", loose="y", more="z"),
        config_map(world.namespace, "maps", colour="red"),
        secret(world.namespace, "late", key="here"),
    )
    wait_until(lambda: printed("cat /maps/colour; ls /maps") == "redcolour\n", "the ConfigMap is followed")
    wait_until(lambda: printed("cat /keys/password") == "whisper", "the Secret is followed")
    wait_until(lambda: printed("cat /late/key") == "here", "what was missing is shown")
    wait_until(lambda: printed("ls /all-keys") == "loose\nmore\npassword\n", "all keys are shown")
    assert printed("ls /keys") == "loose\npassword\n"
    assert printed("stat -L -c '%a %g' /keys/password /keys/loose") == "440 3000\n644 3000\n"
    # What a container was started with does not change.
    assert printed('cat /once; tr "\\0" "\\n" </proc/1/environ | grep PASSWORD') == "bluePASSWORD=hush\n"


# --- how they are shut in


def test_a_node_keeps_what_is_in_its_folders_and_the_machine_sees_none_of_it(world: World) -> None:
    volumes = [{"name": "data", "hostPath": {"path": "/var/openebs/x", "type": "DirectoryOrCreate"}}]
    fields = {"volumeMounts": [{"name": "data", "mountPath": "/openebs"}]}
    spec = {"volumes": volumes, "nodeSelector": {"disk": "fast"}}

    world.run("writer", "echo kept >/openebs/file; echo lost >/etc/pyjiva-test", fields, **spec)
    printed = world.run("reader", "cat /openebs/file; ls /etc/pyjiva-test; true", fields, **spec)

    assert printed.startswith("kept\nls: cannot access '/etc/pyjiva-test'")
    assert world.runner.node_path("two", "/var/openebs/x/file").read_text() == "kept\n"
    assert world.get("reader")["spec"]["nodeName"] == "two"


def test_a_folder_that_must_be_there_is_waited_for(world: World) -> None:
    volumes = [{"name": "data", "hostPath": {"path": "/disks/a", "type": "Directory"}}]
    main = shell("ls /data", volumeMounts=[{"name": "data", "mountPath": "/data", "readOnly": True}])
    spec = {"volumes": volumes, "nodeName": "one", "restartPolicy": "Never"}
    world.apply(pod(world.namespace, "patient", main, **spec))

    wait_until(lambda: "/disks/a is not a Directory" in str(world.runner.notes), "it waits for the folder")
    world.wait_state("patient", "waiting", "ContainerCreating")
    world.runner.node_path("one", "/disks/a").mkdir(parents=True)
    world.runner.node_path("one", "/disks/a/found").touch()

    assert world.wait_end("patient") == "found\n"


def test_a_container_may_do_no_more_than_it_is_allowed(world: World) -> None:
    status = "grep -E 'Cap|NoNewPrivs' /proc/self/status; for f in /x /tmp/x /etc/x; do touch $f; done; true"
    tight = {
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "runAsUser": 65534,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }
    }

    loose = dict(re.findall(r"(\w+):\s+(\S+)", world.run("loose", status)))
    printed = world.run("tight", status, tight)

    found = dict(re.findall(r"(\w+):\s+(\S+)", printed))
    assert int(loose["CapEff"], 16) == 0xA80425FB  # what containerd and Docker give
    assert loose["NoNewPrivs"] == "0"
    assert int(found["CapBnd"], 16) == 1 << 10
    assert int(found["CapEff"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert printed.count("Read-only file system") == 3


def test_root_is_refused_where_it_was_not_wanted(world: World) -> None:
    security = {"runAsNonRoot": True}
    world.apply(pod(world.namespace, "root", shell("id"), securityContext=security))

    waits = world.wait_state("root", "waiting", "CreateContainerConfigError")

    assert "runAsNonRoot" in waits["message"]
    assert world.logs("root") == ""


def test_privileged_pods_run_and_are_reported(world: World) -> None:
    fields = {"securityContext": {"privileged": True}}

    printed = world.run("mighty", "mount -t tmpfs x /mnt && echo mounted", fields)

    assert printed == "mounted\n"
    assert any("mighty" in note and "privileged" in note for note in world.runner.notes)


def test_processes_of_a_container_see_no_others_and_share_folders_of_the_pod(world: World) -> None:
    mounts = [{"name": "space", "mountPath": "/space"}]
    containers = [
        shell("ls -d /proc/[0-9]*; until [ -e /space/go ]; do sleep 0.1; done; echo went", "first"),
        shell("echo >/space/go", "second"),
    ]
    for one in containers:
        one["volumeMounts"] = mounts
    spec = {"volumes": [{"name": "space", "emptyDir": {}}], "restartPolicy": "Never"}
    world.apply(pod(world.namespace, "both", *containers, **spec))

    printed = world.wait_end("both")

    numbers = re.findall(r"/proc/(\d+)", printed)
    assert "1" in numbers
    assert len(numbers) <= 3  # the shell, ls, and what has just ended
    assert printed.endswith("went\n")


# --- their lives


def test_init_containers_come_first_in_their_order(world: World) -> None:
    mounts = [{"name": "space", "mountPath": "/space"}]
    add = "echo {0} >>/space/log"
    inits = [
        shell("[ -e /space/tried ] || {{ touch /space/tried; exit 1; }}; ".format() + add.format(1), "first"),
        shell(add.format(2), "second"),
    ]
    main = shell(add.format(3) + "; cat /space/log")
    for one in (*inits, main):
        one["volumeMounts"] = mounts
    spec = {"volumes": [{"name": "space", "emptyDir": {}}], "initContainers": inits}
    world.apply(pod(world.namespace, "ordered", main, restartPolicy="OnFailure", **spec))

    assert world.wait_end("ordered") == "1\n2\n3\n"
    [first, second] = world.get("ordered")["status"]["initContainerStatuses"]
    assert (first["restartCount"], second["restartCount"]) == (1, 0)


def test_a_container_that_crashes_is_started_again(world: World) -> None:
    world.apply(pod(world.namespace, "crasher", shell("echo here; exit 7")))

    world.wait("crasher", lambda found: restarts(found) >= 2, "it was started again")

    [status] = world.get("crasher")["status"]["containerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert world.logs("crasher").count("here") >= 2
    world.wait_state("crasher", "waiting", "CrashLoopBackOff")


def test_a_process_that_is_killed_is_started_again(world: World) -> None:
    world.apply(pod(world.namespace, "victim", shell(FOREVER)))
    world.wait_ready("victim")

    signal.pidfd_send_signal(world_pid(world, "victim"), signal.SIGKILL)

    world.wait("victim", lambda found: restarts(found) == 1 and is_ready(found), "it runs again")
    [status] = world.get("victim")["status"]["containerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 137


def world_pid(world: World, name: str) -> int:
    """A descriptor of the process, so that it cannot be another's number."""
    return os.pidfd_open(world.runner.process(world.namespace, name))


def test_a_job_is_tried_until_it_succeeds(world: World) -> None:
    volumes = [{"name": "data", "hostPath": {"path": "/job"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    main = shell("[ -e /data/tried ] || { touch /data/tried; exit 1; }", volumeMounts=mounts)
    world.apply(job(world.namespace, "work", main, volumes=volumes, nodeName="one"))

    def status(found: Object | None) -> Any:
        return found and found.get("status", {}).get("succeeded") and found["status"]

    done = world.cluster.wait_for("job", "work", world.namespace, status, "the job has succeeded")
    assert (done["succeeded"], done["failed"]) == (1, 1)


def test_probes_decide_when_a_pod_is_ready_and_when_it_is_started_again(world: World) -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 1}
    main = shell(
        "touch /tmp/alive; " + FOREVER,
        startupProbe={
            "exec": {"command": ["test", "-e", "/tmp/started"]},
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, **quick},
        livenessProbe={"exec": {"command": ["test", "-e", "/tmp/alive"]}, **quick},
    )
    world.apply(pod(world.namespace, "probed", main))

    def do(script: str) -> None:
        assert world.runner.execute(world.namespace, "probed", ["sh", "-c", script]).returncode == 0

    def status(found: Object) -> Object:
        one: Object = found["status"]["containerStatuses"][0]
        return one

    world.wait("probed", lambda found: "running" in status(found)["state"], "it runs")
    assert status(world.get("probed"))["started"] is False
    do("rm /tmp/alive")  # nobody looks before it has started
    do("touch /tmp/alive /tmp/started")
    world.wait("probed", lambda found: status(found)["started"], "it has started")
    assert not is_ready(world.get("probed"))
    do("touch /tmp/ready")
    world.wait_ready("probed")
    do("rm /tmp/ready")
    world.wait("probed", lambda found: not is_ready(found), "it is not ready any more")
    assert restarts(world.get("probed")) == 0
    do("rm /tmp/alive")
    world.wait("probed", lambda found: restarts(found) == 1, "it was started again")
    assert status(world.get("probed"))["lastState"]["terminated"]["exitCode"] == 0  # it was asked to end


@pytest.mark.parametrize("kind", ["tcpSocket", "httpGet"])
def test_a_probe_reaches_the_pod_by_its_network(world: World, kind: str) -> None:
    serve = "sleep 1.5; " + SERVE
    ports = [{"name": "web", "containerPort": 80}]
    probe = {kind: {"port": "web"}, "periodSeconds": 1}
    world.apply(pod(world.namespace, "web", shell(serve, ports=ports, readinessProbe=probe)))

    world.wait("web", lambda found: found["status"]["phase"] == "Running", "it runs")
    assert not is_ready(world.get("web"))
    world.wait_ready("web")


def test_a_pod_that_is_deleted_is_asked_to_end_and_then_made_to(world: World) -> None:
    volumes = [{"name": "data", "hostPath": {"path": "/ends"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    polite = shell("trap 'echo bye >/data/polite; exit 0' TERM; sleep 1000 & wait", volumeMounts=mounts)
    deaf = shell("exec sleep 1000", "deaf")
    spec = {"volumes": volumes, "nodeName": "one", "terminationGracePeriodSeconds": 2}
    world.apply(pod(world.namespace, "ends", polite, deaf, **spec))
    world.wait_ready("ends")

    world.cluster.kubectl("-n", world.namespace, "delete", "pod", "ends")

    assert world.runner.node_path("one", "/ends/polite").read_text() == "bye\n"
    assert world.cluster.get("pod", "ends", world.namespace) is None


def test_an_image_that_cannot_be_had_is_waited_for(world: World) -> None:
    world.runner.set_available("one", "debian", False)
    main = shell("echo had", image="registry.example/debian:12@sha256:" + "0" * 64)
    world.apply(
        pod(world.namespace, "puller", main, nodeName="one", restartPolicy="Never"),
        pod(world.namespace, "stranger", container("main", "true", image="example.org/nobody/knows:1")),
    )

    world.wait_state("puller", "waiting", "ImagePullBackOff")
    world.wait_state("stranger", "waiting", "ImagePullBackOff")
    world.runner.set_available("one", "debian", True)

    assert world.wait_end("puller") == "had\n"


def test_what_the_runner_leaves_out_is_refused_by_name(world: World) -> None:
    lifecycle = {"preStop": {"exec": {"command": ["true"]}}}
    world.apply(
        pod(world.namespace, "much", shell("echo ran", lifecycle=lifecycle), shareProcessNamespace=True)
    )

    waits = world.wait_state("much", "waiting", "PodRunnerDoesNotSupport")

    assert waits["message"] == "spec: shareProcessNamespace, container main: lifecycle"
    assert world.logs("much") == ""


# --- their nodes


COUNT_STARTS: Final = """
for place in /disk /memory /host /etc/own; do
    mkdir -p $place; echo >>$place/starts; echo "$place $(wc -l <$place/starts)"
done
echo "set up $(cat /disk/set-up | wc -l)"; cat /proc/sys/kernel/random/boot_id
"""


def test_a_reboot_starts_containers_again_with_their_folders(world: World) -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": "/reboots"}},
    ]
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    main = shell(COUNT_STARTS + FOREVER, volumeMounts=mounts)
    init = shell("echo >>/disk/set-up", "init", volumeMounts=mounts)
    spec = {"volumes": volumes, "initContainers": [init], "nodeName": "one"}
    world.apply(pod(world.namespace, "counter", main, **spec))
    before = world.wait_ready("counter")

    def lines_of_start(number: int) -> list[str]:
        wait_until(lambda: len(world.logs("counter").splitlines()) >= 6 * number, f"start {number}")
        return world.logs("counter").splitlines()[6 * (number - 1) : 6 * number]

    *counts, first_boot = lines_of_start(1)
    assert counts == ["/disk 1", "/memory 1", "/host 1", "/etc/own 1", "set up 1"]

    signal.pidfd_send_signal(world_pid(world, "counter"), signal.SIGKILL)
    *counts, boot = lines_of_start(2)
    assert counts == ["/disk 2", "/memory 2", "/host 2", "/etc/own 1", "set up 1"]
    assert boot == first_boot

    world.runner.reboot_node("one")
    *counts, boot = lines_of_start(3)
    assert counts == ["/disk 3", "/memory 1", "/host 3", "/etc/own 1", "set up 2"]
    assert boot != first_boot
    world.wait("counter", lambda found: restarts(found) == 2 and is_ready(found), "it is ready again")
    after = world.get("counter")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    [status] = after["status"]["containerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 137

    folder = world.runner.top / "nodes" / "one" / "pods" / before["metadata"]["uid"]
    assert (folder / "volumes" / "disk" / "starts").exists()
    world.cluster.kubectl("-n", world.namespace, "delete", "pod", "counter")
    wait_until(lambda: not folder.exists(), "what was the pod's is gone")
    assert world.runner.node_path("one", "/reboots/starts").read_text() == "\n" * 3


def test_pods_of_a_node_that_dies_come_up_elsewhere_and_are_gone_when_it_is_back(world: World) -> None:
    soon = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 0,
        }
        for key in ("unreachable", "not-ready")
    ]
    world.apply(deployment(world.namespace, "mover", 1, shell(FOREVER), tolerations=soon))
    [first] = wait_until(lambda: list(filter(is_ready, world.pods("mover"))), "a pod is ready")
    node, name = first["spec"]["nodeName"], first["metadata"]["name"]

    world.runner.kill_node(node)
    [second] = wait_until(
        lambda: [
            found for found in world.pods("mover") if is_ready(found) and found["spec"]["nodeName"] != node
        ],
        "a pod is ready on another node",
        timeout_s=60,
    )

    assert second["spec"]["nodeName"] != node
    assert "deletionTimestamp" in world.get(name)["metadata"]  # nobody is there to end it
    assert not is_ready(world.get(name))
    world.runner.revive_node(node)
    wait_until(lambda: world.cluster.get("pod", name, world.namespace) is None, "the old pod is gone")

    def untainted(found: Object | None) -> bool:
        return found is not None and "taints" not in found["spec"] and is_ready(found)

    world.cluster.wait_for("node", node, "", untainted, "the node is as before")
    assert [found["metadata"]["name"] for found in world.pods("mover")] == [second["metadata"]["name"]]
