"""The tables of docs/reference/policies.md, made of the parser's own; as a program it writes them there."""

from pathlib import Path
from typing import Final

from pyjiva.maya.policy import marks
from pyjiva.maya.policy.table import NOT_TAKEN, POLICIES, Policy

__all__ = ["PAGE", "made", "written"]

PAGE: Final = Path(__file__).parents[3] / "docs/reference/policies.md"
BEGIN: Final = "<!-- made of the tables -->\n"
END: Final = "<!-- end -->\n"


def made() -> str:
    """All of them."""
    policies = "".join(row(policy) for policy in POLICIES)
    names = "".join(f"| `{name}` | {reason} |\n" for name, reason in NOT_TAKEN.items())
    parameters = "".join(f"| `{key}` | {instead} |\n" for key, instead in marks.OLD_PARAMETERS.items())
    annotations = "".join(f"| `{key}` | {reason} |\n" for key, reason in marks.NOT_TAKEN.items())
    return (
        "\n## Policies\n\n| policy | form | may be | default | meaning | on one machine |\n"
        f"|---|---|---|---|---|---|\n{policies}"
        f"\n## Policies of other engines\n\nRefused.\n\n| policy | why |\n|---|---|\n{names}"
        "\n## Parameters of a StorageClass\n\nNone is read; for those of OpenEBS 0.5 the refusal says what "
        f"to write.\n\n| parameter | instead |\n|---|---|\n{parameters}"
        f"\n## Annotations and labels that are refused\n\n| key | why |\n|---|---|\n{annotations}\n"
    )


def row(policy: Policy) -> str:
    """Of one policy."""
    default = policy.default + (f"; `{policy.environment}`" if policy.environment else "")
    name = f"`{policy.name}`" + (" (not in Jiva)" if policy.ours else "")
    where = "yes" if policy.on_one_machine else ""
    return f"| {name} | {policy.form.value} | {policy.may_be} | {default} | {policy.meaning} | {where} |\n"


def written() -> tuple[str, str, str]:
    """The page: what stands before the tables, they, and what stands behind."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    tables, _, behind = rest.partition(END)
    return before, tables, behind


if __name__ == "__main__":
    before, _, behind = written()
    PAGE.write_text(f"{before}{BEGIN}{made()}{END}{behind}")
