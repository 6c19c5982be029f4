"""Volume policies: what a StorageClass and a claim ask of a volume, under OpenEBS' names."""

from pyjiva.maya.policy.volume_policy import LabelRequirement, Resources, Toleration, VolumePolicy

__all__ = ["LabelRequirement", "Resources", "Toleration", "VolumePolicy"]
