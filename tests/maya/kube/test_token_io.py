"""`maya.kube.token_io`: the token that counts now goes with each request, and secrets into no error."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from pyjiva.maya.kube import KubeError
from pyjiva.maya.kube.cluster_io import KubeCluster
from pyjiva.maya.kube.credentials import Access, TokenCommand
from pyjiva.maya.kube.resource import CONFIG_MAPS
from pyjiva.maya.kube.token_io import TokenAuth

VERSION = "client.authentication.k8s.io/v1"


def asking(good: str, **access: Any) -> tuple[KubeCluster, list[str]]:
    """A client of a server that takes one token, and the tokens that it was given."""
    given: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        given.append(request.headers.get("authorization", "none").removeprefix("Bearer "))
        return httpx.Response(200 if given[-1] == good else 401, json={"metadata": {}})

    auth = TokenAuth(Access("https://s", **access))
    client = httpx.AsyncClient(base_url="https://s", auth=auth, transport=httpx.MockTransport(answer))
    return KubeCluster(client), given


def program(folder: Path, status: Any, more: str = "") -> TokenCommand:
    """Prints a credential, and counts how often it was asked."""
    file = folder / "print-token"
    answer = json.dumps({"kind": "ExecCredential", "status": status})
    file.write_text(f"#!/bin/sh\necho $KUBERNETES_EXEC_INFO >> {folder}/asked\n{more}\necho '{answer}'\n")
    file.chmod(0o755)
    return TokenCommand(VERSION, (str(file),), {"A": "b"}, "Install it.")


async def test_a_token_of_the_kubeconfig_goes_with_each_request() -> None:
    kube, given = asking("t", token="t")
    await kube.get(CONFIG_MAPS, "ns", "m")
    assert given == ["t"]


async def test_without_a_token_none_is_sent() -> None:
    kube, given = asking("none")
    await kube.get(CONFIG_MAPS, "ns", "m")
    assert given == ["none"]


async def test_a_token_that_is_refused_is_not_sent_twice() -> None:
    kube, given = asking("other", token="t")
    with pytest.raises(KubeError) as raised:
        await kube.get(CONFIG_MAPS, "ns", "m")
    assert raised.value.status == 401
    assert given == ["t"]


async def test_a_program_is_asked_until_its_token_ends(tmp_path: Path) -> None:
    for expires, asked in (("2999-01-01T00:00:00Z", 1), ("2000-01-01T00:00:00Z", 2), (None, 1)):
        (tmp_path / "asked").unlink(missing_ok=True)
        kube, given = asking(
            "t", token_command=program(tmp_path, {"token": "t", "expirationTimestamp": expires})
        )
        await kube.get(CONFIG_MAPS, "ns", "m")
        await kube.get(CONFIG_MAPS, "ns", "m")
        assert given == ["t", "t"]
        requests = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
        assert len(requests) == asked
        assert requests[0]["apiVersion"] == VERSION


async def test_a_program_is_asked_again_for_a_token_that_is_refused(tmp_path: Path) -> None:
    kube, given = asking("none of these", token_command=program(tmp_path, {"token": "t"}))
    with pytest.raises(KubeError) as raised:
        await kube.get(CONFIG_MAPS, "ns", "m")
    assert raised.value.status == 401
    assert given == ["t"]
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("status", "more", "words"),
    [
        ({"clientKeyData": "SECRET"}, "", "did not print an ExecCredential with a token"),
        (None, "", "did not print an ExecCredential with a token"),
        ({"token": "SECRET"}, "echo broken >&2; exit 3", "exit code 3: broken"),
    ],
)
async def test_a_program_that_gives_none_is_named(tmp_path: Path, status: Any, more: str, words: str) -> None:
    kube, _ = asking("t", token_command=program(tmp_path, status, more))
    with pytest.raises(KubeError, match=words) as raised:
        await kube.get(CONFIG_MAPS, "ns", "m")
    assert (raised.value.status, raised.value.reason) == (401, "Unauthorized")
    assert "print-token" in str(raised.value) and "SECRET" not in str(raised.value)


async def test_a_program_that_is_not_there_comes_with_advice(tmp_path: Path) -> None:
    command = TokenCommand(VERSION, (str(tmp_path / "none"),), advice="Install it.")
    kube, _ = asking("t", token_command=command)
    with pytest.raises(KubeError, match=r"cannot be run for a token: .*Install it\."):
        await kube.get(CONFIG_MAPS, "ns", "m")


async def test_a_pods_token_that_is_replaced_while_it_is_asked_with_is_sent_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    given: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        given.append(request.headers["authorization"])
        if given[-1] == "Bearer new":
            return httpx.Response(200, json={"metadata": {}, "body": request.content.decode()})
        file.write_text("new\n")
        return httpx.Response(401, json={})

    auth = TokenAuth(Access("https://s", token_file=str(file)))
    client = httpx.AsyncClient(base_url="https://s", auth=auth, transport=httpx.MockTransport(answer))
    made = await KubeCluster(client).merge(CONFIG_MAPS, "ns", "m", {"a": 1})
    assert given == ["Bearer old", "Bearer new"]
    assert json.loads(made["body"]) == {"a": 1}
