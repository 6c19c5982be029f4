"""A replica's directory that no process owns: what it is, what is wrong with it, how that is put right."""

from pyjiva.checkup.check_sys import check
from pyjiva.checkup.finding import Finding, Kind, Remedy, Severity
from pyjiva.checkup.plan import Plan, Step, make_plan
from pyjiva.checkup.repair_sys import carry_out
from pyjiva.checkup.report import LayerReport, Report

__all__ = [
    "Finding",
    "Kind",
    "LayerReport",
    "Plan",
    "Remedy",
    "Report",
    "Severity",
    "Step",
    "carry_out",
    "check",
    "make_plan",
]
