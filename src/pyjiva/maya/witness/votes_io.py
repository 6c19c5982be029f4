"""A register for a vote in a JivaVolume, over Kubernetes' API.

A read is a GET without a `resourceVersion`, which the API server answers from etcd by a read that is
linearizable, and never from its cache ("Most Recent", Kubernetes' API concepts).  A replacement is a PUT of
the status with the `resourceVersion` of what was read: one of two that were made of the same object succeeds.
Whatever else is in the object is put back as it was, and whoever changes that makes us read again.
"""

import attrs

from pyjiva.maya.kube.cluster import Cluster, Conflict, KubeError, NotFound, Object
from pyjiva.maya.kube.resource import JIVA_VOLUMES
from pyjiva.maya.witness.kept import VoteOf, vote_of, with_vote
from pyjiva.vote import Kept, Vote, VoteUnknown

__all__ = ["JivaVolumeVotes"]


@attrs.define(eq=False)
class JivaVolumeVotes:
    """A VoteStore (`pyjiva.vote`)."""

    cluster: Cluster
    whose: VoteOf

    async def read(self) -> Kept:
        """As VoteStore's."""
        try:
            value = await self.cluster.get(JIVA_VOLUMES, self.whose.namespace, self.whose.name)
        except KubeError as error:
            raise VoteUnknown(f"the API server cannot be asked: {error}") from error
        return self._kept(value)

    async def replace(self, before: Kept, vote: Vote) -> Kept | None:
        """As VoteStore's."""
        read = before.version
        assert isinstance(read, dict)
        assert read["metadata"]["resourceVersion"], "without it the API server would replace anything"
        wanted = with_vote(self.whose, read, vote)
        try:
            value = await self.cluster.update(JIVA_VOLUMES, wanted, subresource="status")
        except (Conflict, NotFound):  # the next read says what is there now
            return None
        except KubeError as error:
            raise VoteUnknown(f"the API server did not keep it, or did not say so: {error}") from error
        kept = self._kept(value)
        if kept.vote != vote:
            raise VoteUnknown(f"{self.whose}: the API server has kept something else than it was sent")
        return kept

    def _kept(self, value: Object | None) -> Kept:
        return Kept(vote_of(self.whose, value), value)
