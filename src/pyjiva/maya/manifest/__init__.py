"""What is installed into a cluster before anything runs there."""

from pyjiva.maya.manifest.crd import custom_resource_definitions

__all__ = ["custom_resource_definitions"]
