"""What happened between two scrapes."""

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.cli.rates import Look, Rate, rates_of_hosts, rates_of_replicas


def scrape(
    reads: tuple[int, ...] = (0, 0, 0), total_s: float = 0.0, length: int = 0, in_flight: int = 0
) -> str:
    """Reads of up to 1 ms, up to 2 ms, and slower ones, cumulative; writes never."""
    labels = 'operation="read",volume="demo"'
    answered = 'operation="write",replica="2",volume="demo"'
    return f"""
# TYPE pyjiva_volume_host_seconds histogram
pyjiva_volume_host_seconds_bucket{{{labels},le="0.001"}} {reads[0]}
pyjiva_volume_host_seconds_bucket{{{labels},le="0.002"}} {reads[1]}
pyjiva_volume_host_seconds_bucket{{{labels},le="+Inf"}} {reads[2]}
pyjiva_volume_host_seconds_count{{{labels}}} {reads[2]}
pyjiva_volume_host_seconds_sum{{{labels}}} {total_s}
pyjiva_volume_host_seconds_count{{operation="write",volume="demo"}} 0
# TYPE pyjiva_volume_host_bytes counter
pyjiva_volume_host_bytes_total{{{labels}}} {length}
# TYPE pyjiva_volume_host_in_flight gauge
pyjiva_volume_host_in_flight{{{labels}}} {in_flight}
# TYPE pyjiva_volume_replica_answer_seconds histogram
pyjiva_volume_replica_answer_seconds_bucket{{{answered},le="0.001"}} {reads[0]}
pyjiva_volume_replica_answer_seconds_bucket{{{answered},le="+Inf"}} {reads[2]}
pyjiva_volume_replica_answer_seconds_count{{{answered}}} {reads[2]}
pyjiva_volume_replica_answer_seconds_sum{{{answered}}} {total_s}
# TYPE pyjiva_volume_replica_in_flight gauge
pyjiva_volume_replica_in_flight{{replica="2",volume="demo"}} {in_flight}
"""


def test_what_was_done_is_the_difference() -> None:
    before = Look.of(scrape((10, 10, 10), total_s=1.0, length=1000), 5.0)
    after = Look.of(scrape((40, 49, 50), total_s=1.5, length=9000, in_flight=3), 7.0)
    assert rates_of_hosts(before, after) == {
        "read": Rate(20.0, 4000.0, 3, 0.0125, median_s=0.001, p99_s=None)
    }
    assert rates_of_replicas(before, after)[2].per_s == 20.0


def test_nothing_done_has_no_times() -> None:
    same = scrape((5, 5, 5), total_s=1.0)
    rates = rates_of_hosts(Look.of(same, 0.0), Look.of(same, 1.0))
    assert rates == {"read": Rate(0.0, 0.0, 0, None, None, None)}


def test_a_controller_that_counts_anew_has_done_nothing_yet() -> None:
    before, after = Look.of(scrape((50, 50, 50), 9.0, 900), 0.0), Look.of(scrape((1, 1, 1), 0.1, 9), 1.0)
    assert rates_of_hosts(before, after)["read"].per_s == 0


def test_what_was_never_asked_for_is_left_out() -> None:
    look = Look.of(scrape(), 0.0)
    assert rates_of_hosts(look, look) == {}


@given(
    st.lists(st.integers(0, 100), min_size=3, max_size=3),
    st.lists(st.integers(0, 100), min_size=3, max_size=3),
)
def test_any_two_scrapes_have_rates(first: list[int], second: list[int]) -> None:
    looks = [Look.of(scrape(tuple(sorted(x))), at) for at, x in enumerate((first, second))]
    for rate in rates_of_hosts(*looks).values():
        assert rate.per_s >= 0
        assert rate.median_s is None or rate.p99_s is None or rate.median_s <= rate.p99_s
