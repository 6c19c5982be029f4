"""The witness whose vote is in its volume's JivaVolume: where the vote is kept."""

from pyjiva.maya.witness.kept import VoteOf, vote_of, with_vote
from pyjiva.maya.witness.votes_io import JivaVolumeVotes

__all__ = ["JivaVolumeVotes", "VoteOf", "vote_of", "with_vote"]
