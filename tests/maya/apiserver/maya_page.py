"""The table of docs/reference/maya-api.md, made of the OpenAPI document; as a program it writes it there."""

from pathlib import Path
from typing import Final

from pyjiva.maya.apiserver.api_document import maya_document
from tests.controller.api_page import rows

__all__ = ["PAGE", "made", "written"]

PAGE: Final = Path(__file__).parents[3] / "docs/reference/maya-api.md"
BEGIN: Final = "<!-- made of the document -->\n"
END: Final = "<!-- end -->\n"


def made() -> str:
    """The table."""
    return f"\n| request | does | parameters | answers |\n|---|---|---|---|\n{rows(maya_document(''))}\n"


def written() -> tuple[str, str, str]:
    """The page: what stands before the table, it, and what stands behind."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, behind = rest.partition(END)
    return before, table, behind


if __name__ == "__main__":
    before, _, behind = written()
    PAGE.write_text(f"{before}{BEGIN}{made()}{END}{behind}")
