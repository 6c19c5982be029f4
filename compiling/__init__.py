"""How the hot modules are compiled ahead of time; see docs/decisions/0012-compiled.md."""
