"""The exporter beside a volume's controller: asks its API, and tells Prometheus and OpenEBS' programs."""

from pyjiva.maya.exporter.exposition import exposition, stats_json
from pyjiva.maya.exporter.scrape import Outcome, Scrape, Tally, figures_of

__all__ = ["Outcome", "Scrape", "Tally", "exposition", "figures_of", "stats_json"]
