"""What is said of the machine."""

import pytest

from bench.machine_sys import processor_of

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC

processor\t: 1
cpu family\t: 26
model\t\t: 2
model name\t: another
"""


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        (X86, "AMD EPYC (family 25, model 1)"),
        ("model name\t: of some kind\n", "of some kind"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", ""),
        ("", ""),
    ],
)
def test_a_processor_is_told_by_name_and_numbers(cpuinfo: str, said: str) -> None:
    assert processor_of(cpuinfo) == said
