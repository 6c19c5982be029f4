"""`maya.kube.names`: no name leads to another object."""

import pytest

from pyjiva.maya.kube import KubeError
from pyjiva.maya.kube.names import check_names
from pyjiva.maya.kube.resource import CONFIG_MAPS, PV


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secrets", "a/b", "a%2fb", "a?b", "a#b", "a b", "ä", "-a\n"]
)
def test_what_is_another_path_is_refused(name: str) -> None:
    for resource, namespace, given in (
        (CONFIG_MAPS, "ns", name),
        (PV, "", name),
        (CONFIG_MAPS, name or "..", "m"),
    ):
        with pytest.raises(KubeError) as raised:
            check_names(resource, namespace, given)
        assert (raised.value.status, raised.value.reason) == (422, "Invalid")


@pytest.mark.parametrize("name", ["m", "pvc-1", "a.b.c", "system:node:n1", "Upper", "9"])
def test_what_could_be_a_name_is_left_to_the_server(name: str) -> None:
    check_names(CONFIG_MAPS, "ns", name)
    check_names(PV, "", name)


def test_a_name_may_be_made_by_the_server() -> None:
    check_names(CONFIG_MAPS, "ns", "", generated=True)


def test_a_namespace_for_what_has_none_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError):
        check_names(PV, "ns", "v")
    with pytest.raises(AssertionError):
        check_names(CONFIG_MAPS, "", "m")
