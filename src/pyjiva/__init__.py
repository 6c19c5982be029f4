"""Replicated block storage that never loses an acknowledged write.

docs/ARCHITECTURE.md says which package does what and where to start reading.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pyjiva")
