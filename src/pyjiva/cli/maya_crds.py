"""`pyjiva-maya crds`: the CustomResourceDefinitions, for kubectl."""

import click

from pyjiva.maya.manifest.crd import custom_resource_definitions
from pyjiva.maya.manifest.yaml_writer import write_yaml

__all__ = ["command"]


@click.command()
def command() -> None:
    """Print the definitions of JivaVolume and JivaSnapshot, for `kubectl apply --server-side -f -`."""
    click.echo(write_yaml(custom_resource_definitions()), nl=False)
