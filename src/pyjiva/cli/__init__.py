"""The programs: each wires whole processes together, one file per command."""

__all__: list[str] = []
