"""Prometheus text to values."""

from __future__ import annotations

import json

import pytest

from loadgen.telemetry.prometheus import NotPrometheus, gpu_names, parse, remembering_parser

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 9914.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 1234.0
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0",model_name="tiny"} 1.78e+09
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="tiny"} 5.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 5.0
vllm:request_queue_time_seconds_count{engine="0",model_name="tiny"} 5.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="tiny"} 0.25
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="tiny"} 7.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 7.0
vllm:iteration_tokens_total_sum{engine="0",model_name="tiny"} 70.0
# TYPE http_requests_total counter
http_requests_total{handler="/metrics"} 88.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} NaN
"""


def test_gauges_counters_and_sums_are_kept_and_buckets_are_not():
    values = parse(VLLM, endpoint="a")
    assert {(value.name, value.value, value.counter) for value in values} == {
        ("vllm:num_requests_waiting", 3.0, False),
        ("vllm:generation_tokens_total", 1234.0, True),
        ("vllm:request_queue_time_seconds_count", 5.0, True),
        ("vllm:request_queue_time_seconds_sum", 0.25, True),
        ("vllm:iteration_tokens_total_count", 7.0, True),
        ("vllm:iteration_tokens_total_sum", 70.0, True),
    }
    assert {value.labels for value in values} == {'{"endpoint": "a", "engine": "0", "model_name": "tiny"}'}


@pytest.mark.parametrize(
    "text",
    ["<!doctype html><html><body>vLLM</body></html>", '{"error": "not found"}', "[]", "a{b 1\n", "hello there world"],
)
def test_what_is_no_prometheus_text_is_said_to_be_none(text: str):
    with pytest.raises(NotPrometheus, match="not Prometheus text"):
        parse(text)


def test_page_read_again_tells_its_new_numbers_and_its_new_lines():
    read = remembering_parser(endpoint="a")
    waiting = 'waiting{engine="0",model_name="tiny"} '
    later = VLLM.replace(f"{waiting}3.0", f"{waiting}5.0")
    longer = later + '# TYPE vllm:num_preemptions_total counter\nvllm:num_preemptions_total{engine="0"} 1.0\n'
    unwell = longer.replace("} 5.0", "} NaN").replace('perc{engine="0",model_name="tiny"} NaN', 'perc{a="1"} 0.5')
    for page in (VLLM, VLLM, later, longer, longer, unwell, unwell, VLLM):
        assert read(page) == parse(page, endpoint="a")
    assert {v.value for v in read(later) if v.name == "vllm:num_requests_waiting"} == {5.0}


def test_value_that_was_not_a_number_at_first_is_told_when_it_is_one():
    read = remembering_parser()
    assert read("# TYPE a gauge\na NaN\nb 1\n") == parse("b 1\n")
    assert {v.name: v.value for v in read("# TYPE a gauge\na 2\nb 1\n")} == {"a": 2.0, "b": 1.0}


def test_lines_with_a_time_of_their_own_are_read_every_time():
    read = remembering_parser()
    for stamp in (1000, 2000):
        assert [v.value for v in read(f"a 7 {stamp}\n")] == [7.0]


def test_of_a_node_exporter_what_is_about_load_network_and_gpu_is_kept():
    text = "\n".join(
        [
            "# TYPE node_load1 gauge",
            "node_load1 1.5",
            "# TYPE node_load15 gauge",
            "node_load15 1.5",
            "# TYPE node_netstat_Tcp_RetransSegs untyped",
            "node_netstat_Tcp_RetransSegs 42",
            "# TYPE node_filesystem_free_bytes gauge",
            'node_filesystem_free_bytes{mountpoint="/"} 1e9',
            "# TYPE node_drm_gpu_busy_percent gauge",
            'node_drm_gpu_busy_percent{card="card0"} 93',
        ]
    )
    values = gpu_names(parse(text, exporter="far:9100"))
    assert {(value.name, value.value) for value in values} == {
        ("node_load1", 1.5),
        ("node_netstat_Tcp_RetransSegs", 42.0),
        ("gpu_utilization_ratio", 0.93),
    }


def test_dcgm_is_told_under_the_names_and_units_of_nvml():
    labels = '{gpu="1",UUID="GPU-1",device="nvidia1",modelName="H200",Hostname="far"}'
    text = "\n".join(
        [
            f"DCGM_FI_DEV_GPU_UTIL{labels} 87",
            f"DCGM_FI_DEV_POWER_USAGE{labels} 512.5",
            f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{labels} 4200500",
            f"DCGM_FI_DEV_SM_CLOCK{labels} 1980",
            f"DCGM_FI_DEV_FB_USED{labels} 1024",
            f"DCGM_FI_DEV_GPU_TEMP{labels} 71",
            f"DCGM_FI_DEV_CLOCKS_EVENT_REASONS{labels} 4",
            f"DCGM_FI_DEV_XID_ERRORS{labels} 0",
        ]
    )
    values = gpu_names(parse(text, exporter="far:9400"))
    plain = {value.name: value for value in values if value.name != "gpu_throttle"}
    assert {name: value.value for name, value in plain.items()} == pytest.approx(
        {
            "gpu_utilization_ratio": 0.87,
            "gpu_power_watts": 512.5,
            "gpu_energy_joules_total": 4200.5,
            "gpu_sm_clock_hertz": 1.98e9,
            "gpu_memory_used_bytes": 2**30,
            "gpu_temperature_celsius": 71.0,
            "DCGM_FI_DEV_XID_ERRORS": 0.0,
        }
    )
    assert plain["gpu_energy_joules_total"].counter
    assert json.loads(plain["gpu_power_watts"].labels) == {"exporter": "far:9400", "gpu": "1"}
    active = [json.loads(v.labels)["reason"] for v in values if v.name == "gpu_throttle" and v.value]
    assert active == ["sw_power_cap"]
