"""`maya.kube.credentials_sys`: where credentials are looked for, and that keys leave no trace."""

import json
import os
import ssl
from pathlib import Path

import pytest

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.credentials import Access, Material
from pyjiva.maya.kube.credentials_sys import load_access, make_ssl_context, read_token
from pyjiva.testing.certificates import Authority

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def write_config(file: Path, server: str) -> Path:
    value = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))
    return file


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What a pod finds."""
    folder = tmp_path / "account"
    folder.mkdir()
    for name in ("namespace", "token", "ca.crt"):
        (folder / name).write_text(f"{name}\n")
    return folder


def test_the_first_place_that_has_something_counts(tmp_path: Path, account: Path) -> None:
    home = {"HOME": str(tmp_path)}
    of_pod = load_access(environment={**POD, **home}, service_account=account)
    assert of_pod == Access(
        "https://10.96.0.1:443",
        "namespace",
        authority=Material(file=str(account / "ca.crt")),
        token_file=str(account / "token"),
    )
    write_config(tmp_path / ".kube/config", "https://home")
    assert load_access(environment={**POD, **home}, service_account=account).server == "https://home"
    named = write_config(tmp_path / "named", "https://variable")
    variable = {**home, "KUBECONFIG": f"{tmp_path}/none:{named}"}
    assert load_access(environment=variable).server == "https://variable"
    option = write_config(tmp_path / "option", "https://option")
    assert load_access(str(option), environment=variable).server == "https://option"


def test_ipv6_in_a_pod(account: Path, tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "HOME": str(tmp_path)}
    assert load_access(environment=environment, service_account=account).server == "https://[fd00::1]:443"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match="no Kubernetes to talk to"):
        load_access(environment={**home, **POD}, service_account=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"kubeconfig .*/none is not there"):
        load_access(str(tmp_path / "none"), environment=home)
    for text, words in (("a: [", "cannot be read"), ("just text", "is no kubeconfig")):
        (tmp_path / "broken").write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_access(str(tmp_path / "broken"), environment=home)
    with pytest.raises(ConfigError, match="the token cannot be read"):
        read_token(str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(str(tmp_path / "empty"))


def test_keys_are_read_from_files_or_from_memory_and_nothing_stays_open(tmp_path: Path) -> None:
    identity = Authority(tmp_path).sign("me")
    assert identity.certificate is not None
    by_file = [Material(file=str(path)) for path in (identity.authority, identity.certificate, identity.key)]
    by_data = [Material(Path(material.file).read_bytes()) for material in by_file]
    before = os.listdir("/proc/self/fd")
    for authority, certificate, key in (by_file, by_data):
        access = Access("https://s", authority=authority, certificate=certificate, key=key)
        context = make_ssl_context(access)
        assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
        assert len(context.get_ca_certs()) == 1
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert make_ssl_context(Access("https://s", insecure=True)).verify_mode is ssl.CERT_NONE
    wrong = Access("https://s", certificate=by_data[1], key=by_data[0])
    for access in (wrong, Access("https://s", authority=Material(b"no PEM"))):
        with pytest.raises(ConfigError, match="certificates for https://s cannot be used"):
            make_ssl_context(access)
