"""What is C in a compiled build: decision 12.  Pure.

What several modules call is a function in Python that asks for its C inside, as mypyc has them call it
directly; all other names are the C or its twin.
"""

import importlib
from typing import Any

__all__ = ["native"]


def native(function: str) -> Any:
    """This function of `pyjiva.native`; None where nothing is compiled: its twin in Python is to be used."""
    try:
        module = importlib.import_module("pyjiva.native")
    except ModuleNotFoundError:
        return None
    return getattr(module, function)
