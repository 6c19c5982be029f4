"""How fast pyjiva is, against tgtd on the same machine: `python -m bench` (see bench/README.md)."""
