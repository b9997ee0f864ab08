"""Tables say what the samples say: ratios of pairs, missed targets, failed rounds."""

import argparse

import pytest
from bench.clients import parse_consumer_output, parse_producer_output
from bench.findings import names_of
from bench.plot import draw
from bench.raw_client import BenchError
from bench.report import markdown, median, outcomes, ratio, tables
from bench.rows import ROW_NAMES, ROWS
from bench.runner import without_paths

PLAN = {
    "rounds": 2, "client_rounds": 1, "seconds": 1, "payload_max": 1e9, "warmup_s": 1, "connections": 1,
    "fetch_connections": 1, "latency_connections": 1,
}  # fmt: skip


def throughput(mb_s, cpu=1.0, client=0.2):
    return {
        "mb_s": mb_s, "messages_s": mb_s * 1000, "cpu_s_per_gb": cpu, "rss_mb": 50.0, "client_busy": client,
        "others_busy": 0.0,
    }  # fmt: skip


def latency(p99):
    return {
        "p50_ms": p99 / 2, "p99_ms": p99, "p999_ms": p99 * 2, "max_ms": p99 * 3, "lateness_p999_ms": 0.1,
        "node_busy": 0.2, "curve_ms": [p99 / 2] * 11,
    }  # fmt: skip


def samples():
    start = {
        "fresh_s": 0.3,
        "existing_s": 0.2,
        "idle_rss_mb": 40.0,
        "idle_pss_mb": 30.0,
        "idle_cpu_percent": 0.1,
    }
    return {
        "start": {"odradek": [start], "kafka": [start | {"fresh_s": 4.0}]},
        "produce-1k": {
            "odradek": [throughput(150), throughput(300)],
            "kafka": [throughput(100, cpu=4), throughput(100, cpu=4)],
        },
        "latency": {"odradek": [latency(3.0)], "kafka": [latency(2.0)]},
    }


def test_ratios_are_taken_of_the_rounds_that_ran_side_by_side():
    found = ratio(samples(), "produce-1k", "mb_s")
    assert (found.lowest, found.median, found.highest) == (1.5, 2.25, 3.0)


def test_a_failed_round_makes_no_pair_and_is_told():
    broken = samples()
    broken["produce-1k"]["kafka"][0] = {"error": "BenchError: gone"}
    assert ratio(broken, "produce-1k", "mb_s").median == 3.0
    assert median(broken, "produce-1k", "odradek", "mb_s") == 225
    assert "kafka failed: BenchError: gone" in str(tables(broken, []))


def test_a_side_that_only_failed_misses_its_targets():
    broken = samples()
    broken["produce-1k"]["odradek"] = [{"error": "BenchError: refused"}] * 2
    assert all(not one.met for one in outcomes(broken, []) if one.row == "produce-1k")


def test_targets_compare_with_numbers_and_with_the_peer():
    found = {(one.row, one.text): one.met for one in outcomes(samples(), [])}
    assert found == {
        ("start", "0.30 s, wanted ≤ 0.80"): True,
        ("start", "40.0 MB, wanted ≤ 90.0"): True,
        ("produce-1k", "225 MB/s, wanted ≥ 200"): True,
        ("produce-1k", "2.25 × Kafka's MB/s, wanted ≥ 1"): True,
        ("produce-1k", "0.25 × Kafka's CPU s/GB, wanted ≤ 1"): True,
        ("latency", "1.50 × Kafka's ms p99, wanted ≤ 1"): False,
    }


def test_without_a_peer_only_the_absolute_targets_are_judged():
    alone = {"produce-1k": {"odradek": [throughput(150)]}}
    assert [(one.text, one.met) for one in outcomes(alone, [])] == [("150 MB/s, wanted ≥ 200", False)]


def test_published_errors_name_no_directories():
    text = without_paths(
        "OSError: [Errno 28] No space left: '/tmp/odradek-bench-x1/rows/data/a.log' at 1.5 GB/s and/or"
    )
    assert text == "OSError: [Errno 28] No space left: '<path>' at 1.5 GB/s and/or"


def test_a_tie_of_two_clients_at_their_limit_is_no_miss():
    busy = throughput(95, client=0.95)
    tied = {"rdkafka-produce-100b-acks1": {"odradek": [busy], "kafka": [throughput(100, client=0.9)]}}
    assert [one.met for one in outcomes(tied, [])] == [None, True]
    tied["rdkafka-produce-100b-acks1"]["kafka"] = [throughput(100, client=0.3)]
    assert [one.met for one in outcomes(tied, [])] == [False, True]


def test_a_busy_client_and_a_disturbed_row_are_marked():
    marked = {"produce-1k": {"odradek": [throughput(150, client=0.9) | {"others_busy": 0.5}]}}
    row = tables(marked, [])[0].rows[0]
    assert row[0].endswith("~")
    assert "90% !" in " ".join(row)


def test_the_report_has_tables_and_misses():
    text = markdown(
        "2026-01-01-x", {"CPU": "a CPU"}, ["a note"], outcomes(samples(), []), tables(samples(), [])
    )
    assert "**missed** · latency" in text
    assert "| produce, 1 KB requests | 225 | 100 | 2.25 (1.50–3.00) |" in text


def test_a_plot_is_drawn_of_whatever_was_measured(tmp_path):
    draw(samples(), {}, tmp_path / "both.png")
    draw({"produce-1k": {"odradek": [throughput(150)]}}, {}, tmp_path / "one.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("both.png", "one.png"))


def test_rows_have_names_of_their_own():
    assert len(set(ROW_NAMES)) == len(ROWS) + 2


def test_rows_are_chosen_by_name_or_beginning():
    parse = names_of(("produce-1k", "produce-1m", "latency"))
    assert parse("latency,produce-*") == ["latency", "produce-1k", "produce-1m"]
    with pytest.raises(argparse.ArgumentTypeError, match="'fetch'"):
        parse("fetch")


def test_the_rate_behind_the_warm_up_is_taken_from_kafkas_producer_tool():
    summary = (
        "{} records sent, {} records/sec (24.35 MB/sec), 291.35 ms avg latency, 460.00 ms max latency, 301 ms 50th, "
        "421 ms 95th, 444 ms 99th, 449 ms 99.9th.\n"
    )
    output = summary.format(6000, 100.5) + summary.format(5000, 369003.69).replace(
        "records sent", "steady state records sent"
    )
    assert parse_producer_output(output, 5000) == 369003.69
    with pytest.raises(BenchError):
        parse_producer_output(output, 6000)


def test_the_time_of_fetching_is_taken_from_kafkas_consumer_tool():
    output = (
        "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
        "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
        "2026-11-20 06:36:30:123, 2026-11-20 06:36:34:123, 47.68, 11.9, 500000, 125000.0, 3322, 678, 70.3, 737463.1\n"
    )
    assert parse_consumer_output(output, 500_000) == (500_000, 0.678)
    with pytest.raises(BenchError, match="received 500000 of 500001"):
        parse_consumer_output(output, 500_001)
