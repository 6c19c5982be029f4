"""Samples as a run of the bench has them."""

from bench.summary import Sample

__all__ = ["TITLES", "samples"]

TITLES = {"tgtd": "tgtd", "limit": "the kernel alone", "pyjiva-3": "pyjiva, 3 replicas"}
CPU = {
    "tgtd": {"tgtd": 40.0, "driver": 12.0},
    "limit": {"limit": 4.0, "driver": 5.0},
    "pyjiva-3": {"driver": 13.0, "replica": 90.0, "controller": 50.0},
}
RSS = {"tgtd": {"tgtd": 5 << 20}, "limit": {"limit": 3 << 20}, "pyjiva-3": {"replica": 120 << 20}}
PROCESSES = {"tgtd": {"tgtd": 1}, "limit": {"limit": 1}, "pyjiva-3": {"controller": 1, "replica": 3}}


def samples() -> list[Sample]:
    """Three targets, a load in commands and one in bytes, two rounds."""
    made = []
    for workload, iops, mb_s in (("rand-read-4k-qd32", 20000.0, 81.9), ("seq-read-1m-qd8", 900.0, 943.7)):
        for round_number in (0, 1):
            for target, factor in (("tgtd", 1.0), ("limit", 2.5), ("pyjiva-3", 0.5)):
                speed = factor * (1 + round_number / 10)
                made.append(
                    Sample(
                        target=target,
                        workload=workload,
                        round=round_number,
                        ops=100,
                        seconds=1.0,
                        iops=iops * speed,
                        mb_s=mb_s * speed,
                        latency_us={"p50": 100.0, "p90": 150.0, "p99": 300.0, "p99.9": 400.0, "max": 500.0},
                        cpu_us_per_io=CPU[target],
                        rss_bytes=RSS[target],
                        process_count=PROCESSES[target],
                        driver_cpu_share=0.8 if target == "limit" else 0.25,
                        idle_cpu_share=0.01,
                        stolen_share=0.02,
                    )
                )
    return made
