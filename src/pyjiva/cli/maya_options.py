"""Options that several of Maya's commands have."""

from collections.abc import Callable
from typing import Any, Final

import click

from pyjiva.cli.shared_options import add_options
from pyjiva.errors import ConfigError
from pyjiva.maya.policy.policies import DEFAULT_POOL

__all__ = ["cluster_options", "pool_option", "pools_of"]


class _PoolType(click.ParamType[tuple[str, str]]):
    name = "name=path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, _, path = str(value).partition("=")
        if not name or not path.startswith("/") or name == DEFAULT_POOL:
            self.fail(f"{value!r}: write NAME=/ABSOLUTE/PATH; {DEFAULT_POOL} is not to be named", param, ctx)
        return name, path


_POOL: Final = _PoolType()

pool_option: Final = click.option(
    "--pool",
    "pools",
    type=_POOL,
    multiple=True,
    help="A folder that volumes may keep their data in, besides `default`; repeat for several.",
)


def pools_of(given: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Paths by name.  Raises ConfigError: one has two."""
    named = dict(given)
    if len(named) < len(given):
        raise ConfigError("--pool: a name is given twice")
    return named


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add where the cluster is, and what of it is ours."""
    options = [
        click.option("--kubeconfig", default="", help="A kubeconfig; else as kubectl, or the pod's."),
        click.option("--context", default="", help="One of the kubeconfig's contexts."),
        click.option(
            "--all-namespaces",
            is_flag=True,
            help="Volumes' pods may be in any namespace (policy DeployInOpenEBSNamespace).",
        ),
    ]
    return add_options(command, options)
