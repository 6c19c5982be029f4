"""From claims to PersistentVolumes: an external provisioner, which keeps nothing but what it writes there."""

__all__: list[str] = []
