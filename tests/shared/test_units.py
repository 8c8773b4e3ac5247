"""Durations and quantities: every unit, and a clear sentence for what is neither."""

from datetime import timedelta

import pytest

from edgefarm.units import MAX_INT64, parse_duration, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1M", 30 * 86_400),
        ("1y", 365 * 86_400),
        ("0s", 0),
        ("1y1M1d1h1m1s", 365 * 86_400 + 30 * 86_400 + 86_400 + 3661),
    ],
)
def test_a_duration_has_the_units_of_the_seed(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "-1s", "1.5h", "1w", "1h ", None, 60, "99999999999999y"])
def test_what_is_no_duration_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (1024, 1024),
        ("1k", 1000),
        ("1Ki", 1024),
        ("500M", 500_000_000),
        ("1.5Gi", 3 * 2**29),
        ("1e9", 10**9),
        ("1E", 10**18),
        ("100m", 1),
        (".5Ki", 512),
        ("9223372036854775807", MAX_INT64),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str | int, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1ki", "1gi", "-1", "1.2.3", "lots", True, None, 1.5, "1GiB"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="500Mi"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["8Ei", "9223372036854775808", "1e99"])
def test_a_quantity_beyond_64_bits_is_too_large(text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_quantity(text)
