import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

import analysis
from analysis.summary import CHANGED, Summary, follows, not_compared
from tests.analysis.handmade import MS, OPEN, chat, directory, mapping_of, plain, request, run, write

OLD = Path(__file__).parents[1] / "fixtures" / "b318a7d"
KINDS = ("run", "agents")
GOLDEN = Path(__file__).parents[1] / "golden"
E = {"value", "low", "high", "confidence", "n", "notes", "note_codes"}
FIGURES = {"mean", "p50", "p90", "p95", "p99", "p999", "min", "max", "sd"}
LATENCIES = {"ttft_ms", "ttft_service_ms", "event_gap_ms", "itl_ms", "tpot_ms", "e2e_ms", "queue_ms"}
RATES = {"requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_per_s"}


def test_the_summary_has_the_keys_scripts_rely_on(tmp_path):
    summary = json.loads(analysis.summarise(directory(tmp_path, chat(), **OPEN)).to_json())
    assert summary["schema"] == "loadgen.summary/2"
    assert {"verdict", "verdict_reasons", "runs", "requests", "window_s", "metrics", "instrument"} <= set(summary)
    assert {"offered", "completed", "failed"} <= set(summary["requests"])
    assert set(summary["metrics"]) == LATENCIES | RATES
    for name in LATENCIES:
        assert set(summary["metrics"][name]) == FIGURES
        for label in FIGURES - {"min", "max", "sd"}:
            assert set(summary["metrics"][name][label]) == E
    for name in RATES:
        assert set(summary["metrics"][name]) == E
    assert set(summary["instrument"]["stamp_error_us"]) == {"bias", "halfwidth"}
    assert set(summary["instrument"]["loop_lag_ms"]) == {"p50", "p99", "max"}
    assert {"tier", "censored_share", "send_lag_ms", "cpu_share", "workers"} <= set(summary["instrument"])


def test_the_same_records_give_the_same_bytes_in_any_order_and_number_of_files(tmp_path):
    rows = [row | {"seq": i + 1} for i, row in enumerate(chat(endpoints=("a", "b")))]
    whole = directory(tmp_path / "whole", rows, **OPEN)
    text = analysis.summarise(whole).to_json()
    assert analysis.summarise(whole).to_json() == text
    np.random.default_rng(9).shuffle(rows)
    shuffled = directory(tmp_path / "shuffled", rows, **OPEN)
    assert analysis.summarise(shuffled).to_json() == text
    for index in range(3):
        write(shuffled / "journal" / f"000-{index:06d}.parquet", rows[index::3])
    (shuffled / "records.parquet").unlink()
    pieces = analysis.summarise(shuffled)
    assert (pieces.interrupted, pieces.notes[0][:21]) == (True, "the run did not close")
    assert pieces.metrics == Summary.from_json(text).metrics


@pytest.mark.parametrize("exact", [0, 500])
def test_streaming_into_bins_agrees_with_the_exact_path(tmp_path, exact):
    frame = analysis.load(directory(tmp_path, chat(), **OPEN))
    full = analysis.summarise(analysis.measure(frame)).metrics
    binned = analysis.summarise(analysis.measure(frame, exact=exact)).metrics
    assert "percentiles from a histogram, within 0.1 %" in binned.event_gap_ms.p50.notes
    for label in ("p50", "p90", "p99"):
        assert binned.event_gap_ms.statistic(label).value == pytest.approx(
            full.event_gap_ms.statistic(label).value, rel=0.001
        )
    assert binned.event_gap_ms.mean == full.event_gap_ms.mean
    assert (binned.event_gap_ms.min, binned.event_gap_ms.max) == (full.event_gap_ms.min, full.event_gap_ms.max)
    assert binned.ttft_ms == full.ttft_ms


def test_latency_from_the_intended_start_shows_what_a_stalled_server_did(tmp_path):
    # K31: 200 arrivals every 10 ms; stalled until 1 s, then 1 ms each, first come first served.
    free, rows = 1000.0, []
    for i in range(200):
        free = max(free, 10.0 * i) + 1
        rows.append(request(10 * i, [free]))
    m = analysis.summarise(directory(tmp_path, rows, runs=[run(open_loop=True)])).metrics.ttft_ms
    assert m.mean.value == pytest.approx(281.28)
    assert m.p50.value == pytest.approx(105.5)
    assert m.p90.value == pytest.approx(821.9)
    assert m.p99.value == pytest.approx(983.09)
    assert m.max == 1001
    first_quick = next(i for i, row in enumerate(rows) if row["done_ns"] - row["intended_ns"] == MS)
    assert first_quick == 112
    closed = [request(1001 + i - 1 if i else 0, [1001 + i]) for i in range(200)]
    m = analysis.summarise(directory(tmp_path, closed)).metrics.ttft_ms
    assert m.mean.value == pytest.approx(6)


def test_survivors_are_called_that_and_failures_are_shown_as_infinite(tmp_path):
    ttft = analysis.summarise(directory(tmp_path, chat(), **OPEN)).metrics.ttft_ms
    assert "survivors only" in ttft.p50.notes
    assert "with failures as +∞: +∞" in ttft.p99.notes
    healthy = analysis.summarise(directory(tmp_path, chat(failures=False), **OPEN)).metrics.ttft_ms
    assert "survivors only" not in healthy.p50.notes


def test_what_an_interrupt_cut_off_is_not_held_against_the_server(tmp_path):
    rows = [*chat(failures=False), *(request(5000, outcome="cancelled", done=5100) for _ in range(30))]
    runs = [run(open_loop=True, measured=(500, 6000), interrupted=True)]
    summary = analysis.summarise(directory(tmp_path, rows, load=OPEN["load"], runs=runs))
    assert summary.interrupted is True
    assert "survivors only" not in summary.metrics.ttft_ms.p50.notes
    assert summary.requests.failed == {"cancelled": 30}


def test_each_endpoint_has_its_own_figures(tmp_path):
    rows = [
        request(10 * i, [10 * i + (50 if i % 2 else 100), 10 * i + 200], endpoint="ba"[i % 2], output=2)
        for i in range(100)
    ]
    summary = analysis.summarise(directory(tmp_path, rows))
    assert list(summary.endpoints) == ["a", "b"]
    assert summary.endpoints["a"].ttft_ms.p50.value == 50
    assert summary.endpoints["b"].ttft_ms.p50.value == 100
    assert summary.endpoints["b"].event_gap_ms.p50.value == 100
    assert summary.metrics.event_gap_ms.mean.value == 125
    assert "endpoints" not in mapping_of(directory(tmp_path, rows[::2]))


def test_calibration_is_printed_and_marks_what_it_limits(tmp_path):
    calibration = {"ttft_bias_us": 17, "ttft_halfwidth_us": 6, "gap_bias_us": 1, "gap_halfwidth_us": 3000}
    rows = [request(10 * i, [10 * i + 100, 10 * i + 120], output=2) for i in range(100)]
    summary = analysis.summarise(directory(tmp_path, rows, instrument={"calibration": calibration}))
    assert plain(summary.instrument.stamp_error_us) == {"bias": 17, "halfwidth": 6}
    assert "instrument-limited" in summary.metrics.tpot_ms.p50.notes  # 20 ms < 10 x 3 ms
    assert "instrument-limited" not in summary.metrics.ttft_ms.p50.notes
    assert summary.metrics.ttft_ms.p50.value == 100  # nothing is subtracted


def test_tokens_stale_connections_and_workload_are_told(tmp_path):
    rows = [request(0, [5], output=1), request(1, [5], output=1, tokens_from="ids"), request(2, [5])]
    rows[0]["stale_connections"] = 2
    summary = analysis.summarise(directory(tmp_path, rows, workload={"source": "synthetic"}))
    assert summary.tokens_from == {"ids": 1, "unknown": 1, "usage": 1}
    assert summary.stale_connections == 2
    assert plain(summary.workload) == {"source": "synthetic"}


def test_the_manifest_may_lack_everything(tmp_path):
    path = directory(tmp_path, chat())
    for manifest in ({}, {"runs": None, "instrument": None, "profile": None, "targets": None}, {"runs": [{}]}):
        (path / "manifest.json").write_text(json.dumps(manifest))
        summary = analysis.summarise(path)
        assert summary.requests.completed == 295
        assert analysis.terminal_report(summary)
    shutil.rmtree(path)


# --- the form of summary.json ----------------------------------------------------------------------------------------


def forms(kind, seen):
    """Each struct that `kind` is made of, by its name: a line per key with its type."""
    if isinstance(kind, msgspec.inspect.StructType):
        name = kind.cls.__name__
        if name not in seen:
            seen[name] = [f"  {field.encode_name}: {named(field.type)}" for field in kind.fields]
            for field in kind.fields:
                forms(field.type, seen)
    for inner in inside(kind):
        forms(inner, seen)
    return seen


def inside(kind):
    """The types that a union, a list or a mapping is made of."""
    parts = [getattr(kind, name) for name in ("item_type", "value_type") if hasattr(kind, name)]
    return [*parts, *getattr(kind, "types", ()), *getattr(kind, "item_types", ())]


def named(kind):
    inner = [named(part) for part in inside(kind)]
    match type(kind).__name__:
        case "StructType" | "EnumType":
            return kind.cls.__name__
        case "UnionType":
            return " | ".join(inner)
        case "VarTupleType" | "ListType" | "TupleType":
            return f"[{', '.join(inner)}]"
        case "DictType":
            return f"{{*: {', '.join(inner)}}}"
    return type(kind).__name__.removesuffix("Type").lower()


def test_the_form_of_the_summary_is_that_of_tests_golden(request):
    """A script relies on keys and types: what changes here needs a higher number of the schema, or only adds."""
    structs = forms(msgspec.inspect.type_info(Summary), {})
    text = "\n".join("\n".join([name, *fields, ""]) for name, fields in structs.items())
    golden = GOLDEN / "summary-form.txt"
    if request.config.getoption("--refresh-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_a_summary_comes_back_from_its_json(tmp_path):
    summary = analysis.summarise(directory(tmp_path, chat(endpoints=("a", "b")), objectives={"ttft_p99_ms": 1}, **OPEN))
    assert Summary.from_json(summary.to_json()) == summary
    assert Summary.from_json(summary.to_json()).to_json() == summary.to_json()


@pytest.mark.parametrize("name", ["run", "five"])
def test_a_summary_of_the_older_schema_can_be_read(name):
    old = Summary.from_json((OLD / name / "summary.json").read_text(encoding="utf-8"))
    now = analysis.summarise(OLD / name)
    assert old.schema == "loadgen.summary/1"
    assert old.metrics.ttft_ms.p50.value == now.metrics.ttft_ms.p50.value
    assert old.per_run == now.per_run


def test_each_note_stands_beside_its_code(tmp_path):
    summary = analysis.summarise(directory(tmp_path, chat(), **OPEN))
    assert tuple(note.sentence for note in summary.note_codes) == summary.notes
    assert tuple(note.sentence for note in summary.verdict_reason_codes) == summary.verdict_reasons
    for figure in (summary.metrics.ttft_ms.p999, summary.metrics.e2e_ms.p99, summary.metrics.goodput_per_s):
        assert figure.notes
        assert tuple(note.sentence for note in figure.note_codes) == figure.notes


# --- summaries of before ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "five", "agents", "sweep/phase_1_test_one", "runtimes/kernel"])
def test_a_summary_of_the_older_schema_follows_from_its_records(name):
    stored = (OLD / name / "summary.json").read_text(encoding="utf-8")
    again = analysis.summarise(OLD / name).to_json()
    assert stored != again
    assert follows(stored, again)
    assert follows(again, again)


def changed(stored, key, value):
    plain = json.loads(stored)
    *path, last = key.split(".")
    part = plain
    for name in path:
        part = part[int(name) if isinstance(part, list) else name]
    part[int(last) if isinstance(part, list) else last] = value
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verdict", "unstable"),
        ("metrics.ttft_ms.p50.value", 1.0),
        ("metrics.ttft_ms.p50.notes", []),
        ("per_run.0.completed", 1),
        ("per_run", []),
        ("a_key_that_is_gone", None),
        ("agents.per_agent.collector.solo.wall_s.value", 1.0),
        ("schema", "loadgen.summary/0"),
    ],
)
def test_an_older_summary_with_another_value_does_not_follow(key, value):
    stored = (OLD / "agents" / "summary.json").read_text(encoding="utf-8")
    assert not follows(changed(stored, key, value), analysis.summarise(OLD / "agents").to_json())


def test_what_means_something_else_today_is_named_where_it_is_there():
    keys = {name: [key.key for key in not_compared((OLD / name / "summary.json").read_text())] for name in KINDS}
    assert keys["run"] == ["schema"]
    assert "agents.per_agent.*.ttft_ms*" in keys["agents"]
    assert all(key.why for key in CHANGED)
    assert not_compared(analysis.summarise(OLD / "run").to_json()) == ()
