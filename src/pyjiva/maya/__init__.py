"""Maya: the Kubernetes side.  Talks to volumes over their API, and keeps no state of its own."""

__all__: list[str] = []
