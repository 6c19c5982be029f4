"""Volume policies: what a StorageClass and a claim ask of a volume, under OpenEBS' names."""

from pyjiva.maya.policy.fault import PoliciesRefused, PolicyFault
from pyjiva.maya.policy.marks import Origin
from pyjiva.maya.policy.policies import Decided, defaults_of, read_policies
from pyjiva.maya.policy.volume_policy import LabelRequirement, Resources, Toleration, VolumePolicy

__all__ = [
    "Decided",
    "LabelRequirement",
    "Origin",
    "PoliciesRefused",
    "PolicyFault",
    "Resources",
    "Toleration",
    "VolumePolicy",
    "defaults_of",
    "read_policies",
]
