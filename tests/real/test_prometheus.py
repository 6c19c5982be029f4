"""What `deploy/` has for Prometheus and Grafana, with a real Prometheus that scrapes a real volume."""

import http
import json
import math
import re
import shutil
import socket
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pyjiva.testing.initiator import open_initiator
from tests.real.volume_process import UpProcess, needs, running_up, wait_until

pytestmark = [pytest.mark.real, needs(("prometheus", "prometheus"), ("promtool", "prometheus"))]

TOP = Path(__file__).parents[2]
RULES = TOP / "deploy/prometheus"
DASHBOARD = TOP / "deploy/grafana/pyjiva.json"
WRITES, READS = 20, 30
VARIABLES = {"$volume": "demo", "$__rate_interval": "1m"}
"""Of the dashboard, as Grafana would put them in."""


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules_and_configuration() -> None:
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_alerts_fire_when_they_are_due_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", (RULES / "alerts.yml").read_text())
    tested = re.findall(r"alertname: (\w+)", (RULES / "alerts_test.yml").read_text())
    assert alerts
    assert set(alerts) == set(tested)


@attrs.frozen
class Prometheus:
    """A running one."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None while nobody answers."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:  # which it is while it starts
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error
            return None
        except OSError:
            return None
        return body["data"]

    def values(self, query: str) -> list[float]:
        """Of all series of an instant query that are numbers."""
        data = self.ask("/api/v1/query", query=query)
        found = [float(series["value"][1]) for series in data["result"]] if data is not None else []
        return [value for value in found if not math.isnan(value)]

    def says(self, query: str, value: float) -> bool:
        """Whether the one value of a query is this."""
        return self.values(query) == [value]


def health_of(up: UpProcess, role: str) -> str:
    words = Path(f"/proc/{up.children()[role]}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("--health") + 1]


@contextmanager
def running_prometheus(directory: Path, up: UpProcess) -> Iterator[Prometheus]:
    """With the configuration of `deploy/`, but for the ports and a shorter interval."""
    shutil.copy(RULES / "alerts.yml", directory)
    text = (RULES / "prometheus.yml").read_text().replace("scrape_interval: 15s", "scrape_interval: 500ms")
    targets = [up.ready["api"].removeprefix("http://"), *(health_of(up, f"replica-{i}") for i in (1, 2, 3))]
    numbers = iter(targets)
    text, replaced = re.subn(r"127\.0\.0\.1:\d+", lambda _: next(numbers), text)
    assert replaced == len(targets)
    (directory / "prometheus.yml").write_text(text)
    with socket.socket() as one:  # Prometheus does not tell which port the kernel has chosen
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={directory}/data"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_until(partial(prometheus.ask, "/api/v1/status/runtimeinfo"), f"Prometheus: {directory}/log")
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


async def use(up: UpProcess) -> None:
    host, _, port = up.ready["portal"].rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(up.ready["iqn"])
        await initiator.command(bytes(6))  # power on
        for lba in range(WRITES):
            cdb = struct.pack(">BBIBHB", 0x2A, 0, lba, 0, 1, 0)
            assert (await initiator.command(cdb, data=b"x" * 512)).status == 0
        for lba in range(READS):
            cdb = struct.pack(">BBIBHB", 0x28, 0, lba, 0, 1, 0)
            assert (await initiator.command(cdb, read_bytes=512)).status == 0
        assert (await initiator.command(struct.pack(">BBIBHB", 0x35, 0, 0, 0, 0, 0))).status == 0
        ranges = struct.pack(">HH4xQI4x", 22, 16, 64, 64)
        assert (await initiator.command(struct.pack(">B6xHB", 0x42, len(ranges), 0), data=ranges)).status == 0


def queries() -> list[str]:
    """Every one of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    assert found
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    assert not [query for query in found if "$" in query], "a variable that is not known here"
    return found


def test_prometheus_scrapes_a_volume_and_every_query_of_the_dashboard_has_data(tmp_path: Path) -> None:
    home = tmp_path / "prometheus"
    home.mkdir()
    options = ("demo", "--size", "64MiB", "--replicas", "3")
    with running_up(tmp_path / "volume", *options) as up, running_prometheus(home, up) as prometheus:
        up.wait_state("healthy")
        wait_until(lambda: prometheus.values("up") == [1.0] * 4, "controller and replicas are scraped")
        # From here on it is an increase.
        name = "pyjiva_volume_host_seconds_count"
        wait_until(lambda: prometheus.values(f'{name}{{operation="write"}}') == [0.0], "a first sample")
        wait_until(
            lambda: len(prometheus.values("pyjiva_replica_disk_seconds_count")) == 18, "the replicas' too"
        )
        trio.run(use, up)
        answered = 'pyjiva_volume_replica_answer_seconds_count{operation="read"}'
        for query, value in (
            (f'{name}{{operation="write"}}', WRITES),
            ("openebs_writes_total", WRITES),
            ("openebs_reads_total", READS),
            ("openebs_read_bytes_total", READS * 512),
            ('pyjiva_volume_replicated_seconds_count{operation="unmap"}', 1),
            (f"sum({answered}) + sum(pyjiva_volume_window_reads_total)", READS),
            ('min(pyjiva_volume_replica_answer_seconds_count{operation="write"})', WRITES),
        ):
            wait_until(partial(prometheus.says, query, value), f"{query} is {value}")
        for query in queries():
            wait_until(partial(prometheus.values, query), f"data for {query}")
        rules = prometheus.ask("/api/v1/rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, rules
        assert not [rule["name"] for rule in rules if rule["alerts"]], rules
        assert up.stop() == 0
