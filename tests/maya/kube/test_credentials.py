"""`maya.kube.credentials`: what kubeconfig files say, and what they do not."""

import base64
from typing import Any

import pytest

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.credentials import Access, KubeConfig, Material, TokenCommand, access_of


def config(path: str = "/home/me/.kube/config", **value: Any) -> KubeConfig:
    return KubeConfig(path, value)


def whole(user: dict[str, Any], cluster: dict[str, Any] | None = None) -> KubeConfig:
    return config(
        clusters=[{"name": "c", "cluster": {"server": "https://s:6443", **(cluster or {})}}],
        users=[{"name": "u", "user": user}],
        contexts=[{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
        **{"current-context": "x"},
    )


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_everything_that_may_stand_there() -> None:
    cluster = {
        "certificate-authority-data": encoded(b"CA"),
        "certificate-authority": "unused",
        "insecure-skip-tls-verify": True,
        "tls-server-name": "name",
        "proxy-url": "http://proxy",
    }
    user = {"client-certificate": "me.crt", "client-key": "/keys/me.key", "token": "t", "tokenFile": "token"}
    assert access_of([whole(user, cluster)]) == Access(
        server="https://s:6443",
        namespace="ns",
        authority=Material(b"CA"),
        insecure=True,
        server_name="name",
        proxy="http://proxy",
        certificate=Material(file="/home/me/.kube/me.crt"),
        key=Material(file="/keys/me.key"),
        token="t",
        token_file="/home/me/.kube/token",
    )


def test_a_program_for_tokens() -> None:
    value = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "get-token",
        "args": ["--cluster", "c"],
        "env": [{"name": "A", "value": "b"}],
        "installHint": "install it",
    }
    made = access_of([whole({"exec": value})]).token_command
    command = ("get-token", "--cluster", "c")
    assert made == TokenCommand(value["apiVersion"], command, {"A": "b"}, "install it")  # type: ignore[arg-type]
    made = access_of([whole({"exec": {**value, "command": "bin/get-token", "args": None}})]).token_command
    assert made is not None and made.command == ("/home/me/.kube/bin/get-token",)


def test_the_first_file_that_names_a_thing_says_what_it_is() -> None:
    first = config("/1/config", contexts=[{"name": "x", "context": {"cluster": "c", "user": "v"}}])
    users = [{"name": "v", "user": {"tokenFile": "t"}}]
    third = config("/3/config", users=users, **{"current-context": "y"})
    access = access_of([first, whole({"token": "no"}), third])
    assert (access.token, access.token_file, access.namespace) == ("", "/3/t", "default")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (config(), "no current-context"),
        (config(**{"current-context": "x"}), "there is no context 'x'"),
        (whole({"username": "me"}), "username is not supported"),
        (whole({"auth-provider": {}}), "auth-provider is not supported"),
        (
            whole({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}),
            "v1alpha1 is not supported",
        ),
        (whole({"client-key-data": "not base64!"}), "client-key-data is not base64"),
        (whole({}, {"server": ""}), "cluster 'c' has no server"),
    ],
)
def test_what_cannot_be_used_is_named(broken: KubeConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        access_of([broken])
    assert "/home/me/.kube/config" in str(raised.value)


def test_another_context_may_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="there is no context 'other'"):
        access_of([whole({})], "other")


def test_secrets_are_in_no_representation() -> None:
    made = access_of([whole({"token": "SECRET", "client-key-data": encoded(b"SECRET")})])
    assert "SECRET" not in repr(made)
    assert "SECRET" not in repr(whole({"token": "SECRET"}))
