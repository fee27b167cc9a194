"""Samples beside requests: series from the file, intervals, pressure, energy. Known answers worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import analysis
from analysis.records.samples import Samples, Series, greatest, grown, least, read_samples, summed
from analysis.report.document import Document
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.telemetry import telemetry_sections
from analysis.report.text import as_text
from analysis.telemetry.pressure import pressure
from analysis.telemetry.section import TelemetrySection
from tests.analysis.handmade import MS, directory, mapping_of, request, run
from tests.analysis.sampled import Row, S, rows, write


def series(values: dict[float, float], *, counter: bool = False) -> Series:
    at_ns = np.array([round(at * S) for at in values], np.int64)
    return Series(0, "server", "x", {}, counter, at_ns, np.array(list(values.values())))


def ns(*seconds: float) -> np.ndarray:
    return np.array([round(at * S) for at in seconds], np.int64)


# --- series -----------------------------------------------------------------------------------------------------------


def test_series_are_those_of_the_file_in_whatever_order_and_number_of_files_they_lie(tmp_path):
    told = [
        *rows("b", {1: 10, 2: 20}, endpoint="x"),
        *rows("b", {1: 11, 2: 21}, endpoint="y"),
        *rows("a", {0.5: 1}, kind="counter", source="host"),
        *rows("b", {3: 30}, endpoint="x", number=1),
    ]
    whole = read_samples([write(tmp_path / "whole.parquet", told)])
    parts = read_samples([write(tmp_path / "1.parquet", told[3:]), write(tmp_path / "0.parquet", told[:3])])
    keys = [(one.run, one.source, one.name, dict(one.labels), one.counter) for one in whole.series]
    assert keys == [
        (0, "host", "a", {}, True),
        (0, "server", "b", {"endpoint": "x"}, False),
        (0, "server", "b", {"endpoint": "y"}, False),
        (1, "server", "b", {"endpoint": "x"}, False),
    ]
    for one, other in zip(whole.series, parts.series, strict=True):
        assert one.at_ns.tolist() == other.at_ns.tolist()
        assert one.values.tolist() == other.values.tolist()
    assert whole.find("b", 0, {"endpoint": "y"})[0].values.tolist() == [11, 21]
    assert [one.run for one in read_samples([tmp_path / "whole.parquet"], runs=[1]).series] == [1]
    assert read_samples([]).series == ()


def test_gauge_of_an_interval_is_that_of_the_samples_in_it_and_the_last_one_before():
    gauge = series({0.0: 5, 1.0: 2, 2.0: 9, 3.0: 1})
    starts, ends = ns(0.5, 1.2, 3.5, 10.0, -1.0), ns(0.7, 2.5, 3.6, 11.0, -0.5)
    assert greatest(gauge, starts, ends).tolist()[:3] == [5, 9, 1]
    assert least(gauge, starts, ends).tolist()[:3] == [5, 2, 1]
    # The last sample is seven seconds old; and before the first one nothing is known.
    assert np.isnan(greatest(gauge, starts, ends)[3:]).all()


def test_counter_grew_between_the_samples_around_the_interval():
    counter = series({0.0: 100, 1.0: 103, 2.0: 110, 3.0: 110}, counter=True)
    grew = grown(counter, ns(0.5, 1.0, 1.2, 2.9), ns(0.6, 1.5, 2.0, 3.5))
    assert grew.tolist()[:3] == [3, 7, 7]
    assert np.isnan(grew[3])  # no sample after it


def test_counter_that_falls_was_started_again_from_zero():
    assert grown(series({0.0: 100, 1.0: 104, 2.0: 3}, counter=True), ns(0.1), ns(1.9)).tolist() == [7]


def test_sum_over_engines_takes_what_each_last_was():
    a, b = series({0.0: 1, 2.0: 3}), series({1.0: 10, 2.0: 20})
    total = summed([a, b])
    assert total is not None
    assert (total.at_ns / S).tolist() == [0, 1, 2]
    assert total.values.tolist() == [1, 11, 23]
    assert summed([]) is None


# --- pressure ---------------------------------------------------------------------------------------------------------


def test_pressure_tells_what_bore_on_each_wait(tmp_path):
    told = [
        *rows("vllm:num_requests_waiting", {0: 0, 1: 2, 2: 0}, endpoint="a", engine="0"),
        *rows("vllm:num_requests_waiting", {0: 0, 1: 3, 2: 0}, endpoint="a", engine="1"),
        *rows("vllm:num_requests_waiting", {0: 9, 1: 9, 2: 9}, endpoint="b", engine="0"),
        *rows("vllm:kv_cache_usage_perc", {0: 0.1, 1: 0.97, 2: 0.2}, endpoint="a"),
        *rows("vllm:num_preemptions_total", {0: 4, 1: 4, 2: 6}, endpoint="a", kind="counter"),
        *rows("vllm:request_queue_time_seconds_sum", {0: 1.0, 1: 1.6, 2: 1.6}, endpoint="a", kind="counter"),
        *rows("vllm:request_queue_time_seconds_count", {0: 10, 1: 13, 2: 13}, endpoint="a", kind="counter"),
        *rows("scrape_duration_seconds", {0: 0.01, 1: 0.01, 2: 0.01}, endpoint="a"),
        *rows("gpu_utilization_ratio", {0: 0.9, 1: 0.9, 2: 0.9}, source="nvml", gpu="0"),
        *rows("gpu_sm_clock_hertz", {0: 2e9, 1: 2e9, 2: 1.8e9}, source="nvml", gpu="0"),
        *rows("gpu_throttle", {0: 0, 1: 0, 2: 1}, source="nvml", gpu="0", reason="sw_power_cap"),
        *rows("gpu_throttle", {0: 1, 1: 1, 2: 1}, source="nvml", gpu="0", reason="gpu_idle"),
        *rows("tcp_retransmitted_segments_total", {0: 7, 1: 7, 2: 8}, source="host", kind="counter"),
    ]
    samples = read_samples([write(tmp_path / "t.parquet", told)])
    found = pressure(samples, 0, "a", ns(0.2, 0.5, 1.5), ns(0.4, 1.5, 2.0))
    assert found.waiting.tolist() == [0, 5, 5]
    assert found.kv_usage.tolist() == [0.1, 0.97, 0.97]
    assert found.preemptions.tolist() == [0, 2, 2]
    assert found.queue_s[:2] == pytest.approx([0.2, 0.2])
    assert np.isnan(found.queue_s[2])  # none was counted
    assert found.throttled.tolist() == [0, 0, 1]
    assert found.clock_drop == pytest.approx([0, 0, 0.1])
    assert found.retransmits.tolist() == [0, 1, 1]
    assert found.gap_s == 1.0


def test_what_was_not_sampled_is_not_known():
    found = pressure(Samples(), 0, "a", ns(0.0), ns(1.0))
    for column in (found.waiting, found.kv_usage, found.preemptions, found.queue_s, found.throttled, found.clock_drop):
        assert np.isnan(column).all()


def test_idle_boards_low_clock_is_no_drop(tmp_path):
    told = [
        *rows("gpu_utilization_ratio", {0: 0.9, 1: 0.9, 2: 0.0}, source="nvml", gpu="0"),
        *rows("gpu_sm_clock_hertz", {0: 2e9, 1: 2e9, 2: 3e8}, source="nvml", gpu="0"),
    ]
    samples = read_samples([write(tmp_path / "t.parquet", told)])
    assert pressure(samples, 0, "a", ns(1.0), ns(2.5)).clock_drop.tolist() == [0.0]


# --- the summary ------------------------------------------------------------------------------------------------------


def summary_of(path: Path, told: list[Row], requests: list[Row], **manifest: Any) -> dict[str, Any]:
    directory(path, requests, **manifest)
    write(path / "telemetry.parquet", told)
    plain: dict[str, Any] = json.loads(analysis.summarise(path).to_json())
    return plain


def test_summary_puts_the_servers_queue_beside_what_its_clients_saw(tmp_path):
    requests = [request(i * 100, [i * 100 + 40, i * 100 + 50], output=2) for i in range(5)]
    requests += [request(1000 + i * 100, [1000 + i * 100 + 90], output=1) for i in range(5)]
    told = [
        *rows("vllm:num_requests_waiting", {-0.25: 0, 0: 0, 0.5: 0, 0.95: 4, 1.5: 4, 2.0: 0}, endpoint="a"),
        *rows("vllm:kv_cache_usage_perc", {0: 0.2, 1.0: 0.8, 2.0: 0.5}, endpoint="a"),
        *rows("vllm:request_queue_time_seconds_sum", {-1: 50, 0: 50, 2.0: 50.5}, endpoint="a", kind="counter"),
        *rows("vllm:request_queue_time_seconds_count", {-1: 3, 0: 3, 2.0: 13}, endpoint="a", kind="counter"),
        *rows("vllm:time_to_first_token_seconds_sum", {0: 7, 2.0: 7.64}, endpoint="a", kind="counter"),
        *rows("vllm:time_to_first_token_seconds_count", {0: 3, 2.0: 13}, endpoint="a", kind="counter"),
        *rows("vllm:num_preemptions_total", {0: 1, 2.0: 1}, endpoint="a", kind="counter"),
    ]
    told += rows("cpu_busy_ratio", {0.0: 0.1, 1.0: 0.3}, source="host", core="0")
    told += rows("cpu_busy_ratio", {0.0: 0.2, 1.0: 0.8}, source="host", core="1")
    telemetry = {"interval_s": 0.5, "absent": [{"source": "nvml", "reason": "no driver"}], "notes": ["n"]}
    summary = summary_of(tmp_path, told, requests, runs=[run(measured=(0, 2000))], telemetry=telemetry)
    section = summary["telemetry"]
    server = section["servers"]["a"]
    assert server["queue_mean_ms"] == 50
    assert server["server_ttft_mean_ms"] == pytest.approx(64)
    assert server["client_ttft_service_mean_ms"] == pytest.approx(65)
    assert server["preemptions"] == 0
    assert server["kv_usage"] == {"min": 0.2, "mean": 0.5, "max": 0.8, "n": 3}
    assert server["requests"] == {
        "n": 10,
        "queue_seen_share": 0.5,
        "ttft_service_mean_ms": {"queue_seen": 90, "no_queue_seen": 40},
        "kv_usage": {"p50": pytest.approx(0.5), "max": 0.8},
    }
    source = section["sources"]["server"]
    assert source["counters"]['vllm:request_queue_time_seconds_count{endpoint="a"}'] == {"delta": 10}
    host = section["sources"]["host"]
    assert host["gauges"]['cpu_busy_ratio{core="each"}'] == {"min": 0.1, "mean": 0.35, "max": 0.8, "n": 4}
    assert host["sampling_gap_s"] == {"p50": 1, "max": 1}
    assert (section["absent"], section["notes"], section["interval_s"]) == (telemetry["absent"], ["n"], 0.5)
    text = " ".join(analysis.terminal_report(analysis.summarise(tmp_path)).split())
    assert "mean wait in its queue 50 ms" in text
    assert "50% of 10 requests waited while its queue was not empty" in text
    assert "no GPU sampled: no driver" in text


def test_what_a_server_counts_when_it_has_finished_is_told_of_all_that_were_asked_in_the_window(tmp_path):
    """The window closes with the last request sent, and the one that queued is answered half a second later."""
    requests = [request(0, [50, 500], output=2), request(10, [550, 1000], output=2)]
    told = []
    for name, first, second in (("request_queue_time", 0.0, 0.49), ("time_to_first_token", 0.05, 0.54)):
        total = {-0.2: 0, 0.3: 0, 0.8: first, 1.3: first + second, 1.8: 99}
        told += rows(f"vllm:{name}_seconds_sum", total, endpoint="a", kind="counter")
        counted = {-0.2: 0, 0.3: 0, 0.8: 1, 1.3: 2, 1.8: 100}
        told += rows(f"vllm:{name}_seconds_count", counted, endpoint="a", kind="counter")
    server = summary_of(tmp_path, told, requests, runs=[run(measured=(0, 900))])["telemetry"]["servers"]["a"]
    assert server["queue_mean_ms"] == pytest.approx(245)
    assert server["server_ttft_mean_ms"] == pytest.approx(295)
    assert server["client_ttft_service_mean_ms"] == pytest.approx(295)


def test_a_run_that_did_not_close_is_read_from_its_segments(tmp_path):
    directory(tmp_path, [request(0, [40])])
    told = rows("vllm:num_requests_waiting", {0: 1, 1: 3}, endpoint="a")
    write(tmp_path / "telemetry" / "000000.parquet", told[:1])
    write(tmp_path / "telemetry" / "000001.parquet", told[1:])
    (tmp_path / "telemetry" / "000002.tmp").write_bytes(b"PAR1")
    crashed = analysis.summarise(tmp_path)
    write(tmp_path / "telemetry.parquet", told)
    assert analysis.summarise(tmp_path) == crashed
    assert crashed.telemetry.servers["a"].waiting.mean == 2


def test_directory_without_samples_has_no_such_section(tmp_path):
    summary = mapping_of(directory(tmp_path, [request(0, [40])]))
    assert "telemetry" not in summary
    assert "energy" not in summary


def test_what_was_sampled_is_told_in_lines_on_a_terminal_in_a_list_in_markdown_and_on_the_page(tmp_path):
    told = rows("vllm:num_requests_waiting", {0: 1, 1: 3, 2: 1}, endpoint="a")
    telemetry = {"interval_s": 0.5, "absent": [{"source": "nvml", "reason": "<b>no</b> \x1b[31mdriver"}], "notes": []}
    summary = summary_of(tmp_path, told, [request(0, [40])], runs=[run(measured=(0, 2000))], telemetry=telemetry)
    document = Document("", telemetry_sections(msgspec.convert(summary["telemetry"], TelemetrySection)))
    _, *lines = as_text(document).splitlines()
    assert all(line.startswith("  ") and line.isprintable() and len(line) <= 80 for line in lines)
    assert lines[-1] == "  no GPU sampled: <b>no</b>  [31mdriver"
    heading, _, *listed = as_markdown(document).splitlines()
    assert heading == "## Telemetry"
    assert all(line.startswith("- ") for line in listed)
    assert listed[-1] == r"- no GPU sampled: \<b\>no\</b\>  \[31mdriver"
    page = as_page(document)
    assert "<h2>Telemetry</h2>\n<ul>" in page
    assert "<li>no GPU sampled: &lt;b&gt;no&lt;/b&gt;  [31mdriver</li>" in page
    assert page.count("<li>") == len(listed)


# --- energy -----------------------------------------------------------------------------------------------------------


def loaded(seconds: int, number: int = 0) -> list[Row]:
    """One request per second, each of 10 tokens, answered half a second later."""
    return [request(i * 1000, [i * 1000 + 500], output=10, run=number, seq=i) for i in range(seconds)]


def energy_of(path: Path, told: list[Row], runs: int = 1, seconds: int = 20, **manifest: Any) -> dict[str, Any]:
    requests = [one for number in range(runs) for one in loaded(seconds, number)]
    entries = [run(number, (0, seconds * 1000 - 1)) for number in range(runs)]
    energy: dict[str, Any] = summary_of(path, told, requests, runs=entries, **manifest)["energy"]
    return energy


def ticks(until: float, every: float = 0.5, since: float = -1.0) -> list[float]:
    return np.arange(since, until + every / 2, every).tolist()


def test_energy_is_the_counters_growth_over_the_window(tmp_path):
    counted = {t: 5000 + 250 * t for t in ticks(25)}
    told = rows("gpu_energy_joules_total", counted, source="nvml", kind="counter", gpu="0")
    told += rows("gpu_power_watts", dict.fromkeys(ticks(25), 999.0), source="nvml", gpu="0")
    energy = energy_of(tmp_path, told)
    # 20 s of 250 W for 200 tokens in 20 answers; the last answer comes after 19.5 s.
    assert energy["method"] == "energy counter"
    assert energy["joules"] == [pytest.approx(5000, rel=1e-3)]
    assert energy["joules_per_output_token"]["value"] == pytest.approx(25, rel=1e-3)
    assert energy["joules_per_request"]["value"] == pytest.approx(250, rel=1e-3)
    assert energy["mean_power_w"] == [pytest.approx(250, rel=1e-3)]
    assert "window of less than 60 s" in energy["joules_per_output_token"]["notes"]
    assert energy["net_joules_per_output_token"]["value"] is None
    assert energy["net_joules_per_output_token"]["notes"] == ["idle power was not measured for 30 s"]


def test_energy_is_told_arm_by_arm(tmp_path):
    """Alone an agent makes 10 tokens a second of 100 W, two together 20 of 150 W; the third arm ran for too short."""
    arms = ["together", "alone:a", "alone:b"]
    design = {"primary": "together", "arms": [{"name": name} for name in arms]}
    lasting = {0: 20, 1: 20, 2: 5}
    requests = loaded(20, 0) + loaded(20, 0) + loaded(20, 1) + loaded(5, 2)
    entries = [run(n, (0, seconds * 1000 - 1), arm=arms[n], block=0) for n, seconds in lasting.items()]
    told = []
    for number, watts in enumerate((150.0, 100.0, 100.0)):
        told += rows("gpu_power_watts", dict.fromkeys(ticks(25), watts), source="nvml", number=number, gpu="0")
    summary = summary_of(tmp_path, told, requests, runs=entries, design=design)
    energy = summary["energy"]
    assert energy["arm"] == "together"
    assert energy["joules_per_output_token"]["value"] == pytest.approx(7.5, rel=1e-3)
    assert list(energy["arms"]) == ["alone:a", "alone:b"]
    assert energy["arms"]["alone:a"]["joules_per_output_token"]["value"] == pytest.approx(10, rel=1e-3)
    text = " ".join(analysis.terminal_report(analysis.summarise(tmp_path)).split())
    assert "arm together: 7.5" in text
    assert "arm alone:a: 10" in text
    assert "arm alone:b: not told: a window of 5 s: energy needs 10 s or more" in text
    reports = analysis.html_report(tmp_path) + analysis.markdown_report(analysis.summarise(tmp_path))
    whole = " ".join(reports.split())
    assert whole.count("alone:b: not told") == 2


def test_a_campaign_of_one_arm_names_none(tmp_path):
    told = rows("gpu_power_watts", dict.fromkeys(ticks(25), 200.0), source="nvml", gpu="0")
    energy = energy_of(tmp_path, told, design={"primary": "main", "arms": [{"name": "main"}]})
    assert not {"arm", "arms"} & energy.keys()


def test_energy_without_a_counter_is_the_area_under_the_power_of_all_boards(tmp_path):
    ramp = {t: 100 + 10 * t for t in ticks(25)}
    told = rows("gpu_power_watts", ramp, source="amdgpu", gpu="0")
    told += rows("gpu_power_watts", dict.fromkeys(ticks(25), 50.0), source="amdgpu", gpu="1")
    energy = energy_of(tmp_path, told)
    assert energy["method"] == "power by trapezoids"
    assert energy["boards"] == ["0", "1"]
    assert energy["joules"] == [pytest.approx(20 * 200 + 20 * 50, rel=1e-3)]


def test_interval_over_runs_holds_the_sensors_own_error(tmp_path):
    told = []
    for number, watts in enumerate((200.0, 210.0, 190.0)):
        told += rows("gpu_power_watts", dict.fromkeys(ticks(25), watts), source="amdgpu", number=number, gpu="0")
    figure = energy_of(tmp_path, told, runs=3)["joules_per_output_token"]
    assert figure["value"] == pytest.approx(20, rel=5e-3)
    half = 4.303 * 0.05 / 3**0.5 * 20  # t over the logarithms of three runs, CV 5 %
    assert figure["high"] - figure["value"] == pytest.approx((half**2 + 1.0**2) ** 0.5, rel=0.1)


def test_a_run_that_was_cut_short_takes_no_energy_from_the_others(tmp_path):
    """Its window of 5 s is too short for energy, which refused that of the others too."""
    told = []
    for number in range(4):
        counted = {t: 250 * (t + 1) for t in ticks(25)}
        told += rows("gpu_energy_joules_total", counted, source="nvml", kind="counter", number=number, gpu="0")
    requests = [*(one for number in range(3) for one in loaded(20, number)), *loaded(5, 3)]
    entries = [*(run(number, (0, 19_999)) for number in range(3)), run(3, (0, 4999), interrupted=True)]
    energy = summary_of(tmp_path, told, requests, runs=entries)["energy"]
    assert energy["joules"] == [pytest.approx(5000, rel=1e-3)] * 3
    assert energy["joules_per_request"]["value"] == pytest.approx(250, rel=1e-3)


def test_short_window_is_refused(tmp_path):
    told = rows("gpu_energy_joules_total", {t: 250 * t for t in ticks(9)}, source="nvml", kind="counter", gpu="0")
    figure = energy_of(tmp_path, told, seconds=5)["joules_per_output_token"]
    assert figure["value"] is None
    assert figure["notes"] == ["a window of 5 s: energy needs 10 s or more"]


def test_gap_in_the_power_is_not_bridged(tmp_path):
    told = rows("gpu_power_watts", {t: 200.0 for t in ticks(25) if not 8 < t < 11}, source="nvml", gpu="0")
    assert energy_of(tmp_path, told)["joules_per_request"]["notes"] == ["samples are missing in the window"]


def test_energy_beyond_idle_is_told_where_idle_was_seen_for_long_enough(tmp_path):
    power = {t: 200.0 if 0 < t <= 20 else 60.0 for t in ticks(25, since=-40)}
    told = rows("gpu_power_watts", power, source="nvml", gpu="0")
    energy = energy_of(tmp_path, told)
    assert energy["idle_w"] == pytest.approx(60, rel=0.01)
    assert energy["net_joules_per_output_token"]["value"] == pytest.approx((200 - 60) * 20 / 200, rel=0.02)


def test_what_is_left_above_idle_is_as_uncertain_as_the_whole(tmp_path):
    told = []
    for number in range(3):  # all alike, so that the doubt is the sensor's alone: 5 % of 200 W, and not of 80 W
        power = {t: 200.0 if 0 < t <= 20 else 120.0 for t in ticks(25, since=-40)}
        told += rows("gpu_power_watts", power, source="nvml", number=number, gpu="0")
    energy = energy_of(tmp_path, told, runs=3)
    gross, net = energy["joules_per_output_token"], energy["net_joules_per_output_token"]
    assert net["value"] == pytest.approx(8, rel=0.02)
    assert net["high"] - net["value"] == pytest.approx(gross["high"] - gross["value"], rel=1e-3)
    assert "instrument-limited" in net["notes"]


def test_boards_of_this_machine_say_nothing_of_a_server_on_another(tmp_path):
    told = rows("gpu_power_watts", dict.fromkeys(ticks(25), 200.0), source="nvml", gpu="0")
    far = [{"name": "a", "url": "http://far.example:8000", "api": "openai", "model": "m"}]
    energy = energy_of(tmp_path / "1", told, targets=far)
    assert energy["refused"].startswith("the boards sampled are this machine's")
    told += rows("gpu_power_watts", dict.fromkeys(ticks(25), 300.0), source="exporter", gpu="0", exporter="far:9400")
    energy = energy_of(tmp_path / "2", told, targets=far)
    assert energy["boards"] == ["0 at far:9400"]
    assert energy["joules_per_output_token"]["value"] == pytest.approx(30, rel=1e-3)


def test_report_draws_server_and_clients_on_one_axis_and_names_the_energy(tmp_path):
    told = rows("gpu_power_watts", dict.fromkeys(ticks(25), 200.0), source="nvml", gpu="0")
    told += rows("gpu_utilization_ratio", dict.fromkeys(ticks(25), 0.9), source="nvml", gpu="0")
    told += rows("vllm:kv_cache_usage_perc", dict.fromkeys(ticks(25), 0.5), endpoint="a")
    for part, step in (("sum", 0.05), ("count", 1.0)):
        growing = {t: step * max(0.0, t) for t in ticks(25)}
        told += rows(f"vllm:request_queue_time_seconds_{part}", growing, endpoint="a", kind="counter")
    directory(tmp_path, loaded(20), runs=[run(measured=(0, 19999))])
    write(tmp_path / "telemetry.parquet", told)
    page = analysis.html_report(tmp_path)
    charts = json.loads(page.split('id="charts">')[1].split("</script>")[0])
    chart = next(one for one in charts if one["title"] == "a: clients and server on one time axis")
    drawn = {trace["name"]: trace for trace in chart["traces"]}
    assert drawn["TTFT from sending"]["y"] == [500.0] * 20
    assert set(drawn["server: wait in its queue"]["y"]) == {50.0}
    assert set(drawn["server: KV cache used"]["y"]) == {50.0}
    assert drawn["server: KV cache used"]["yaxis"] == "y3"
    assert {"yaxis", "yaxis2", "yaxis3"} <= chart["layout"].keys()
    assert any(one["title"] == "GPU 0" for one in charts)
    assert "J per output token" in page
    text = analysis.terminal_report(analysis.summarise(tmp_path))
    assert "GPU 0: 90% busy; 200 W" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_milliseconds_of_handmade_records_and_seconds_here_are_one_clock():
    assert S == 1000 * MS
