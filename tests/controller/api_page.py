"""The tables of docs/reference/api.md, made of the OpenAPI documents; as a program it writes them there."""

from pathlib import Path
from typing import Any, Final

from pyjiva.controller.api_document import controller_document
from pyjiva.replica.api_document import replica_document
from pyjiva.transport.problem import PROBLEM_TYPE

__all__ = ["PAGE", "made", "written"]

PAGE: Final = Path(__file__).parents[2] / "docs/reference/api.md"
BEGIN: Final = "<!-- made of the documents -->\n"
END: Final = "<!-- end -->\n"
ALWAYS: Final = ("401", "500")


def made() -> str:
    """Both tables."""
    return "".join(
        f"\n### {heading}\n\n| request | does | parameters | answers |\n|---|---|---|---|\n{rows(document)}\n"
        for heading, document in (
            ("Of the controller", controller_document("")),
            ("Of a replica", replica_document("")),
        )
    )


def rows(document: dict[str, Any]) -> str:
    """One for each operation."""
    return "".join(
        f"| `{method.upper()} {path}` | {operation['summary']} | {parameters(operation)} | "
        f"{answers(operation)} |\n"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )


def parameters(operation: dict[str, Any]) -> str:
    """Each with what it means; those that may be left out in brackets."""
    return "; ".join(
        f"`{each['name']}`: {each['description']}"
        if each["required"]
        else f"[`{each['name']}`]: {each['description']}"
        for each in operation["parameters"]
    )


def answers(operation: dict[str, Any]) -> str:
    """Statuses; in words where it did what was asked."""
    told = [
        f"{status}: {answer['description'].rstrip('.')}"
        for status, answer in operation["responses"].items()
        if PROBLEM_TYPE not in answer["content"]
    ]
    problems = [
        status
        for status, answer in operation["responses"].items()
        if PROBLEM_TYPE in answer["content"] and status not in ALWAYS
    ]
    return "; ".join([*told, ", ".join(problems)] if problems else told)


def written() -> tuple[str, str, str]:
    """The page: what stands before the tables, they, and what stands behind."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    tables, _, behind = rest.partition(END)
    return before, tables, behind


if __name__ == "__main__":
    before, _, behind = written()
    PAGE.write_text(f"{before}{BEGIN}{made()}{END}{behind}")
