"""The commands as scripts rely on them: exit codes, one line on stderr, results alone on stdout, and what is on disk.

Bad input is tried in this process, because that is quick. What needs a process of its own (signals, pipes) gets one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from loadgen.campaign.rundir import file_sha256, manifest_sha256
from loadgen.emulator import Law, spawn
from tests.fakes.command import LONGEST_S, Result, command, rows, run_here, run_there
from tests.fakes.peer import chunked, listening

KEY, HEADER_SECRET = "sk-live-0123456789", "gateway-9876543210"
FILES = ["manifest.json", "records.parquet", "report.html", "summary.json", "telemetry.parquet"]
LIMITS = {"connect_s": 2, "first_token_s": 5, "between_tokens_s": 5, "total_s": 20, "drain_s": 2, "no_progress_s": 10}
WORK = {"prompt_tokens": 16, "output_tokens": 2}


@pytest.fixture(scope="module")
def emulator():
    # A gap so long that even on a busy machine no two tokens are read together, which would be exit code 4.
    # One that lends no tokenizer: asking it costs a thousand requests, most of a second, each time.
    with spawn(Law(ttft_s=0.02, gap_s=0.1), presents="openai") as running:
        yield running


@pytest.fixture(scope="module")
def vllm():
    with spawn(Law()) as running:
        yield running


def profile(folder: Path, **parts: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(
        yaml.safe_dump({"load": {"concurrency": 2, "requests": 4}, "work": WORK, "limits": LIMITS, **parts})
    )
    return path


@pytest.fixture(scope="module")
def finished(emulator, tmp_path_factory) -> tuple[Result, Path]:
    """A run that went well, with a key and a header that must stay secret."""
    folder = tmp_path_factory.mktemp("finished")
    result = run_there(
        *("run", profile(folder), "--url", emulator.url, "--api-key-env", "LOADGEN_TEST_KEY"),
        *("--header", f"X-Gateway: {HEADER_SECRET}", "--option", f"api_key={KEY}", "--seed", "7"),
        *("--out", folder / "run", "--json", "--no-progress"),
        env={**os.environ, "LOADGEN_TEST_KEY": KEY},
    )
    return result, folder / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "copy"))


# A wrong command line or profile: nothing is started

RUN = ("run", "--url", "http://127.0.0.1:9", "--concurrency", "1", "--requests", "1")
WRONG = {
    "an option nobody knows": (("run", "--concurency", "4"), "No such option: --concurency"),
    "a command nobody knows": (("rnu",), "No such command 'rnu'"),
    "text for a number": (("run", "--concurrency", "many"), "'--concurrency'.* got 'many'"),
    "text for a number, with =": (("run", "--rate=fast"), "'--rate'.* got 'fast'"),
    "a number out of range": ((*RUN, "--seed", "-1"), "seed must be >= 0, got -1"),
    "two loads at once": (
        ("run", "--rate", "1", "--concurrency", "1", "--requests", "1"),
        "has both concurrency and rate",
    ),
    "a URL that is none": ((*RUN, "--url", "ftp://here"), r"url must start with http:// or https://"),
    "an unknown objective": ((*RUN, "--objective", "ttft_p98_ms=5"), r"objectives.ttft_p98_ms is not .*\(did you mean"),
    "an objective without a value": ((*RUN, "--objective", "ttft"), "--objective ttft: write it as NAME=VALUE"),
    "an option that is not YAML": ((*RUN, "--option", "stop=["), "--option stop: its value is not YAML"),
    "a header without a colon": ((*RUN, "--header", f"Bearer {KEY}"), "--header has no colon"),
    "a header of two lines": (
        (*RUN, "--header", f"X-Key: {KEY}\nX-Other: 1"),
        "headers.X-Key has a value that HTTP does",
    ),
    "a header beyond Latin-1": ((*RUN, "--header", f"X-Key: {KEY}€"), "headers.X-Key has a value that HTTP does not"),
    "a header with a blank in its name": (
        (*RUN, "--header", "X Key: 1"),
        "headers holds a name that HTTP does not allow",
    ),
    "a key that is not in the environment": ((*RUN, "--api-key-env", "LOADGEN_NO_SUCH"), "LOADGEN_NO_SUCH is not set"),
    "a key for its variable's name": ((*RUN, "--api-key-env", KEY), "must be the name of an environment variable"),
    "certificates that are not there": (
        (*RUN, "--ca-file", "/no/such.pem"),
        "/no/such.pem: cannot be read: No such file",
    ),
    "certificates that are none": ((*RUN, "--ca-file", __file__), "holds no certificate; name a PEM file"),
    "a profile that is not there": (
        ("run", "quikstart"),
        r"quikstart: no such file or .*\(did you mean quickstart\?\)",
    ),
    "no such directory to report": (("report", "/no/such/run"), "/no/such/run: neither records.parquet nor"),
    "no such directory to verify": (("verify", "/no/such/run"), "/no/such/run: no manifest.json in it"),
    "a URL without http": (("discover", "--url", "localhost:8000"), "--url localhost:8000: must start with http://"),
    "a model to nobody": (("discover", "--model", "m"), "--model names who answers the requests of --small-writes"),
    "a tier nobody has": (("calibrate", "--tier", "psychic"), "--tier psychic: use kernel, callback or aiohttp"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = WRONG[what]
    result = run_here(*arguments)
    assert (result.code, result.out) == (2, "")
    assert re.search(expected, result.line), result.line
    assert KEY not in result.line or what == "a key for its variable's name"
    assert list(tmp_path.iterdir()) == []


PROFILES = {
    "an unknown key": (
        "load: {concurency: 4}",
        r"bad.yaml: load.concurency is not a known key \(did you mean concurrency",
    ),
    "a wrong type": (
        "load: {concurrency: four, requests: 1}",
        "bad.yaml: load.concurrency must be a whole number, got 'four'",
    ),
    "a bad bound": ("load: {concurrency: 4, requests: 1}\nlimits: {total_s: -5}", "limits.total_s must be > 0, got -5"),
    "not a mapping": ("- 1\n- 2", "bad.yaml: must be a mapping .* got a list"),
    "not YAML": ("load: {concurrency: 4", "bad.yaml: line 1, column 22: "),
    "no end": ("load: {concurrency: 4}", "bad.yaml: load needs requests or duration_s, else it would never end"),
}


@pytest.mark.parametrize("what", PROFILES)
def test_a_wrong_profile_names_file_key_value_and_cure(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, expected = PROFILES[what]
    (tmp_path / "bad.yaml").write_text(text)
    result = run_here("run", "bad.yaml", "--url", "http://127.0.0.1:9")
    assert (result.code, result.out) == (2, "")
    assert re.search(expected, result.line), result.line
    assert os.listdir(tmp_path) == ["bad.yaml"]


def test_a_usage_error_of_the_real_command_has_no_traceback(tmp_path):
    result = run_there("run", "--concurrency", "many", cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert "got 'many'" in result.line


def test_version_needs_no_command():
    result = run_here("--version")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"loadgen \d+\.\d+\S*\n", result.out)


def test_no_arguments_print_the_help():
    result = run_here()
    assert result.code == 2
    assert "Usage: loadgen" in result.err


@pytest.mark.parametrize("bad", ["with\nbreak", "sk-with-blanks ", "bey\N{LATIN SMALL LETTER O WITH DIAERESIS}nd", ""])
def test_a_key_that_no_header_can_hold_is_refused_without_being_told(bad, monkeypatch, tmp_path):
    monkeypatch.setenv("LOADGEN_TEST_KEY", bad)
    result = run_here(*RUN, "--api-key-env", "LOADGEN_TEST_KEY", "--out", tmp_path / "run")
    assert result.code == 2
    assert "LOADGEN_TEST_KEY" in result.line
    assert not bad or bad not in result.line


# Servers that are not what they should be


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_unreachable_server_is_exit_code_5_and_no_directory(tmp_path):
    port = free_port()
    result = run_here("run", profile(tmp_path), "--url", f"http://127.0.0.1:{port}", "--out", tmp_path / "run")
    assert (result.code, result.out) == (5, "")
    assert result.line == f"loadgen: http://127.0.0.1:{port}: connection refused"
    assert not (tmp_path / "run").exists()


def test_a_host_without_an_address_is_unreachable(tmp_path):
    result = run_here("run", profile(tmp_path), "--url", "http://no-such-host.invalid", "--out", tmp_path / "run")
    assert (result.code, result.out) == (5, "")
    assert "http://no-such-host.invalid: no such host" in result.line


@contextlib.contextmanager
def raw(said: bytes) -> Iterator[str]:
    """A server that says `said` to every client, and hangs up."""
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    if said:
                        connection.recv(65536)
                        connection.sendall(said)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html><title>nginx</title></html>"


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (b"", 5, "closed before any answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 5, "does not speak HTTP"),
        (PAGE, 2, "something answers, but not like a server we know; say which with --api"),
    ],
    ids=["closes", "not HTTP", "HTML"],
)
def test_a_stranger_is_told_apart_before_anything_is_sent(said, code, expected, tmp_path):
    with raw(said) as url:
        result = run_here("run", profile(tmp_path), "--url", url, "--out", tmp_path / "run")
    assert (result.code, result.out) == (code, "")
    assert expected in result.line
    assert url in result.line
    assert not (tmp_path / "run").exists()


def test_a_page_of_html_to_every_request_is_a_run_in_which_all_failed(tmp_path):
    with raw(PAGE) as url:
        result = run_here(
            *("run", profile(tmp_path), "--url", url, "--api", "openai", "--model", "m"),
            *("--out", tmp_path / "run", "--json", "--no-progress"),
        )
    assert result.code == 5
    assert "every request failed: 4 protocol (nginx (expected text/event-stream, got text/html))" in result.line
    assert result.json()["requests"] | {"measured": 0} == {
        **{"offered": 4, "completed": 0, "failed": {"protocol": 4}, "measured": 0, "measured_completed": 0}
    }


def test_a_wrong_model_is_told_with_those_there_are(vllm, tmp_path):
    result = run_here("run", profile(tmp_path), "--url", vllm.url, "--model", "nope", "--out", tmp_path / "run")
    assert (result.code, result.out) == (2, "")
    assert result.line == f"loadgen: {vllm.url}: no model 'nope' there; it has emulated"
    assert not (tmp_path / "run").exists()


# What a good run leaves and prints


def test_a_good_run_prints_its_summary_and_nothing_else(finished):
    result, directory = finished
    assert (result.code, result.err) == (0, "")
    assert result.out == (directory / "summary.json").read_text()


def test_the_directory_holds_what_the_contract_says(finished):
    assert sorted(os.listdir(finished[1])) == FILES


def test_the_report_needs_no_network(finished):
    html = (finished[1] / "report.html").read_text()
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?(https?:)?//""", html)


def test_the_columns_of_the_records_are_those_of_the_contract(finished):
    columns = {field.name: str(field.type) for field in pq.read_schema(finished[1] / "records.parquet")}
    int64 = ["seq", "intended_ns", "sent_ns", "sent_last_ns", "connect_ns", "connected_ns", "headers_ns", "done_ns"]
    int64 += [f"server_{name}_ns" for name in ("load", "prompt_eval", "eval", "queue")]
    int32 = ["run", "turn", "input_tokens", "output_tokens", "cached_tokens", "status", "stale_connections"]
    texts = ["agent", "endpoint", "session", "tokens_from", "outcome", "error", "finish_reason", "prompt_sha"]
    lists = {"event_ns": "int64", "event_tokens": "int32", "event_kind": "uint8", "event_read": "int32"}
    assert columns == (
        dict.fromkeys(int64, "int64")
        | dict.fromkeys(int32, "int32")
        | dict.fromkeys(texts, "string")
        | {name: f"list<element: {kind} not null>" for name, kind in lists.items()}
    )


def test_the_records_say_what_happened(finished):
    found = rows(finished[1])
    assert [record["seq"] for record in found] == [0, 1, 2, 3]
    for record in found:
        assert (record["outcome"], record["status"], record["output_tokens"]) == ("ok", 200, 2)
        assert record["tokens_from"] == "usage"
        assert record["intended_ns"] <= record["sent_ns"] <= record["headers_ns"] <= record["done_ns"]
    # Two connections, each used twice.
    assert [record["connected_ns"] is None for record in found].count(True) == 2


FIGURES = {
    *("ttft_ms", "ttft_service_ms", "event_gap_ms", "itl_ms", "tpot_ms", "e2e_ms", "queue_ms"),
    *("requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_per_s"),
}


def test_the_keys_of_the_summary_are_those_of_the_schema(finished):
    summary = finished[0].json()
    assert summary["schema"] == "loadgen.summary/2"
    assert {"verdict", "verdict_reasons", "runs", "requests", "window_s", "metrics", "instrument"} <= set(summary)
    assert summary["verdict"] == "ok"
    assert summary["runs"] == 1
    assert {"offered", "completed", "failed"} <= set(summary["requests"])
    assert set(summary["metrics"]) == FIGURES
    of_latency = summary["metrics"]["ttft_ms"]
    assert {"mean", "p50", "p90", "p95", "p99", "p999", "min", "max", "sd"} <= set(of_latency)
    for estimate in (of_latency["mean"], of_latency["p99"], summary["metrics"]["requests_per_s"]):
        assert set(estimate) == {"value", "low", "high", "confidence", "n", "notes", "note_codes"}
    told = summary["instrument"]
    assert {"tier", "stamp_error_us", "censored_share", "loop_lag_ms", "send_lag_ms", "cpu_share", "workers"} <= set(
        told
    )
    assert set(told["stamp_error_us"]) >= {"bias", "halfwidth"}
    assert set(told["loop_lag_ms"]) == set(told["send_lag_ms"]) == {"p50", "p99", "max"}


def test_the_manifest_says_what_ran(finished):
    manifest = json.loads((finished[1] / "manifest.json").read_text())
    assert {"profile", "seed", "targets", "workload", "host", "instrument", "runs", "sha256"} <= set(manifest)
    assert manifest["finished"] is True
    assert manifest["seed"] == manifest["profile"]["seed"] == 7
    assert manifest["targets"][0]["model"] == "emulated"
    assert sorted([*manifest["sha256"], "manifest.json"]) == FILES


def everything_in(directory: Path) -> bytes:
    """All bytes of a directory, the records in the clear as well."""
    found = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    found += [json.dumps(pq.read_table(path).to_pylist()).encode() for path in directory.rglob("*.parquet")]
    return b"\n".join(found)


def test_neither_key_nor_header_reaches_a_file_or_a_stream(finished):
    result, directory = finished
    for secret in (KEY, HEADER_SECRET):
        assert secret.encode() not in everything_in(directory)
        assert secret not in result.out + result.err


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_records(tmp_path, monkeypatch):
    monkeypatch.setenv("LOADGEN_TEST_KEY", KEY)
    words = json.dumps({"error": {"message": f"Incorrect API key {KEY} from {HEADER_SECRET}"}}).encode()

    def repeat(peer: Any, connection: Any, before: int) -> bool:
        if before == 0:
            head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(words) + words)
        else:
            connection.sendall(chunked(b"data: " + words + b"\n\n"))
        return True

    with listening(repeat) as peer:
        result = run_here(
            *("run", profile(tmp_path), "--url", peer.url, "--api", "openai", "--model", "m", "--no-progress"),
            *(
                "--api-key-env",
                "LOADGEN_TEST_KEY",
                "--header",
                f"X-Gateway: {HEADER_SECRET}",
                "--out",
                tmp_path / "run",
            ),
        )
        assert all(f"Authorization: Bearer {KEY}" in head for head in peer.heads)
        assert all(f"X-Gateway: {HEADER_SECRET}" in head for head in peer.heads)
    assert {record["outcome"] for record in rows(tmp_path / "run")} == {"http_error", "server_error"}
    assert all("Incorrect API key [redacted] from [redacted]" in record["error"] for record in rows(tmp_path / "run"))
    for secret in (KEY, HEADER_SECRET):
        assert secret.encode() not in everything_in(tmp_path / "run")
        assert secret not in result.out + result.err


def test_quiet_prints_nothing_and_text_names_the_report(emulator, tmp_path):
    run = ("run", profile(tmp_path), "--url", emulator.url, "--tier", "callback")
    quiet = run_here(*run, "--quiet", "--out", tmp_path / "quiet")
    text = run_here(*run, "--no-progress", "--out", tmp_path / "text")
    assert quiet.out == ""
    assert text.out.endswith(f"{tmp_path / 'text'}/report.html\n")
    assert "TTFT" in text.out
    assert "stamps by the callback tier: asked for" in text.err
    for result in (quiet, text):  # that tier's verdict hangs on how busy this machine is, and then there is a line
        assert result.code in (0, 4)
        assert "stamps by" in result.err or (result.err == "") == (result.code == 0)


def test_a_taken_directory_is_refused_and_left_alone(finished, emulator, copied, tmp_path):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    result = run_here("run", profile(tmp_path), "--url", emulator.url, "--out", copied)
    assert (result.code, result.out) == (2, "")
    assert result.line == f"loadgen: --out {copied}: exists already; name a new directory, or remove it"
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_tokens_read_together_are_generator_limited_and_exit_code_4(emulator, tmp_path):
    result = run_here(
        *("run", profile(tmp_path), "--url", emulator.url, "--header", "X-Emulator-Fault: one-write"),
        *("--out", tmp_path / "run", "--json", "--no-progress"),
    )
    assert result.code == 4
    assert "generator-limited: 50.0% of token events share a read" in result.line
    assert result.json()["verdict"] == "generator-limited"


@pytest.mark.parametrize(
    ("objective", "code", "line"),
    [
        ("error_rate=0.99", 0, None),
        ("ttft_p50_ms=0.001", 1, "loadgen: objective failed: ttft_p50_ms"),
        ("error_rate=0.01", 3, "loadgen: objective inconclusive: error_rate"),
    ],
)
def test_objectives_decide_the_exit_code(emulator, tmp_path, objective, code, line):
    path = profile(tmp_path, load={"concurrency": 6, "requests": 12})
    result = run_here(
        *("run", path, "--url", emulator.url, "--objective", objective, "--out", tmp_path / "run", "--json"),
        *("--no-progress", "--output-tokens", 1),
    )
    assert result.code == code, result.err
    assert (result.line if line else result.err or None) == line
    assert result.json()["verdict"] == "ok"


def test_a_directory_that_cannot_be_made_is_a_usage_error(emulator, tmp_path):
    result = run_here("run", profile(tmp_path), "--url", emulator.url, "--out", "/dev/null/run")
    assert (result.code, result.out) == (2, "")
    assert result.line == "loadgen: --out /dev/null/run: Not a directory; name a directory that can be made"


# discover, report, verify


def test_discover_lists_who_answers(vllm):
    result = run_here("discover", "--url", vllm.url, "--json")
    assert (result.code, result.err) == (0, "")
    (found,) = result.json()
    assert found == {
        "url": vllm.url,
        "kind": "vllm",
        "api": "openai",
        "version": "0.32.0+emulated",
        "models": ["emulated"],
    }
    text = run_here("discover", "--url", vllm.url)
    assert text.code == 0
    assert vllm.url in text.out


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_discover_says_that_nobody_answers(more):
    url = f"http://127.0.0.1:{free_port()}"
    result = run_here("discover", "--url", url, *more)
    assert result.code == 5
    assert result.line == f"loadgen: nobody we know answers at {url}"
    assert result.out == ("[]\n" if more else "")


def test_report_prints_the_summary_again_and_changes_nothing(copied):
    before = everything_in(copied)
    result = run_here("report", copied, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.out == (copied / "summary.json").read_text()
    assert "verdict: OK" in run_here("report", copied).out
    assert everything_in(copied) == before


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("text", "http://"),
        ("markdown", "# http"),
        ("json", '{\n "schema": "loadgen.summary/2"'),
        ("html", "<!doctype html>"),
    ],
)
def test_report_has_four_forms(copied, form, begins):
    result = run_here("report", copied, "--format", form)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(begins)


def test_report_says_where_html_cannot_be_written_and_prints_all_the_same(copied):
    result = run_here("report", copied, "--json", "--html", "/no/such/place.html")
    assert result.code == 2
    assert "/no/such/place.html: cannot be written: No such file or directory" in result.line
    assert result.out == (copied / "summary.json").read_text()


def test_records_that_were_overwritten_are_one_line(copied):
    size = (copied / "records.parquet").stat().st_size
    (copied / "records.parquet").write_bytes(b"\0" * size)
    (copied / "summary.json").unlink()
    for arguments in (("report", copied), ("verify", copied)):
        result = run_here(*arguments)
        assert "Traceback" not in result.err
        assert result.code in (0, 1, 2)  # report prints what is left: a manifest and no records


def test_verify_is_content_with_a_good_run(finished):
    result = run_here("verify", finished[1])
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{finished[1]}: 5 files as recorded; the summary follows from the records\n"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.7, 1.0])
def test_verify_notices_one_changed_byte_in_any_file(copied, name, place):
    path = copied / name
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1
    path.write_bytes(data)
    result = run_here("verify", copied)
    assert result.code == 1
    assert f"{name}: changed since the run" in result.out + result.err
    assert (result.out + result.err).count("\n") == 1


def test_verify_notices_a_file_that_is_gone_and_checksums_made_to_fit(copied):
    (copied / "report.html").unlink()
    gone = run_here("verify", copied)
    assert (gone.code, gone.out) == (1, "report.html: missing\n")
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["sha256"]["report.html"]
    (copied / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    assert run_here("verify", copied).code == 1


def test_verify_notices_a_summary_that_does_not_follow_though_every_checksum_fits(copied):
    summary = json.loads((copied / "summary.json").read_text())
    summary["metrics"]["ttft_ms"]["mean"]["value"] /= 2
    (copied / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["sha256"]["summary.json"] = file_sha256(copied / "summary.json")
    (copied / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    manifest["manifest_sha256"] = manifest_sha256(copied / "manifest.json")
    (copied / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    result = run_here("verify", copied)
    assert result.code == 1
    assert result.out == "summary.json: does not follow from records.parquet and manifest.json\n"


def test_verify_of_something_else_is_exit_code_2(tmp_path):
    (tmp_path / "notes.txt").write_text("not a run")
    result = run_here("verify", tmp_path)
    assert result.code == 2
    assert result.line == f"loadgen: {tmp_path}: no manifest.json in it; name a run's directory"


# Signals: what was measured is kept

SIGNALS = {
    "Ctrl-C": (signal.SIGINT, 1),
    "SIGTERM": (signal.SIGTERM, 1),
    "SIGTERM, two workers": (signal.SIGTERM, 2),
    "Ctrl-C to the whole group, two workers": (signal.SIGINT, 2),
    "kill -9": (signal.SIGKILL, 1),
    "kill -9, two workers": (signal.SIGKILL, 2),
}
KILLED = [how for how in SIGNALS if how.startswith("kill")]
STOPPED = [how for how in SIGNALS if how not in KILLED]


def wait_for(fact: Callable[[], Any]) -> None:
    until = time.monotonic() + LONGEST_S
    while not fact():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def writers(directory: Path) -> set[str]:
    """The workers that have records on disk: one alone may have several segments before another has begun."""
    return {path.name.partition("-")[0] for path in directory.glob("journal/*.parquet")}


@pytest.fixture(scope="module")
def interrupted(emulator, tmp_path_factory) -> dict[str, tuple[Result, Path]]:
    """Endless runs, one after the other, each struck by its signal as soon as it has something on disk."""
    folder = tmp_path_factory.mktemp("interrupted")
    path = profile(folder, load={"concurrency": 4, "duration_s": 300})
    ended = {}
    for index, (how, (number, workers)) in enumerate(SIGNALS.items()):
        directory = folder / str(index)
        # Without progress: on a busy machine it takes ten seconds to begin, and then there would be a line of it.
        options = ("--workers", workers, "--out", directory, "--json", "--no-progress")
        run = command("run", path, "--url", emulator.url, *options)
        process = subprocess.Popen(
            run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            wait_for(lambda d=directory, n=workers: len(writers(d)) == n)
            if "group" in how:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            out, err = process.communicate(timeout=LONGEST_S)
        finally:
            process.kill()
            process.wait()
        ended[how] = Result(process.returncode, out, err), directory
    return ended


@pytest.mark.parametrize("how", STOPPED)
def test_an_interrupted_run_closes_its_directory_with_what_was_measured(interrupted, how):
    result, directory = interrupted[how]
    assert result.code == 130, result.err
    assert result.line == f"loadgen: interrupted; what was measured until then is in {directory}"
    assert sorted(os.listdir(directory)) == FILES
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["finished"] is False
    found = rows(directory)
    outcomes = [record["outcome"] for record in found]
    assert outcomes.count("ok") > 0
    assert set(outcomes) <= {"ok", "cancelled"}
    assert outcomes.count("cancelled") <= 4
    assert len({record["seq"] for record in found}) == len(found)
    summary = result.json()
    assert summary["interrupted"] is True
    assert summary["requests"]["completed"] == outcomes.count("ok")
    assert run_here("verify", directory).code == 0


@pytest.mark.parametrize("how", KILLED)
def test_report_shows_what_a_killed_run_had_measured_again_and_again(interrupted, how):
    result, directory = interrupted[how]
    assert (result.code, result.out) == (-signal.SIGKILL, "")
    assert "Traceback" not in result.err
    assert sorted(os.listdir(directory)) == ["journal", "manifest.json", "telemetry"]
    first = run_here("report", directory, "--json")
    assert (first.code, first.err) == (0, "")
    assert first.json()["requests"]["completed"] > 0
    assert first.json()["interrupted"] is True
    assert any("the run did not close" in note for note in first.json()["notes"])
    html = (directory / "report.html").read_bytes()
    again = run_here("report", directory, "--json")
    assert again == first
    assert (directory / "report.html").read_bytes() == html
    assert sorted(os.listdir(directory)) == ["journal", "manifest.json", "report.html", "telemetry"]
    unfinished = run_here("verify", directory)
    assert unfinished.code == 2
    assert "the run did not finish; see loadgen report" in unfinished.line


def test_a_worker_that_is_killed_ends_the_run_and_nothing_is_lost(emulator, tmp_path):
    import psutil

    path = profile(tmp_path, load={"concurrency": 4, "duration_s": 300})
    directory = tmp_path / "run"
    process = subprocess.Popen(
        command("run", path, "--url", emulator.url, "--workers", 2, "--out", directory, "--quiet"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: len(writers(directory)) == 2)
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if any("multiprocessing.spawn" in word for word in child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()
        out, err = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
        process.wait()
    result = Result(process.returncode, out, err)
    assert (result.code, result.out) == (4, "")
    assert re.search(r"worker \d ended without a word", result.line)
    assert sorted(os.listdir(directory)) == FILES
    assert [record["outcome"] for record in rows(directory)].count("ok") > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "--concurrency", "1", "--requests", "2"), "interrupted before anything was measured"),
        (("slots",), "interrupted"),
    ],
    ids=["run", "slots"],
)
def test_a_signal_before_anything_was_measured_leaves_nothing(tmp_path, words, line):
    """The server accepts and never says who it is; the command gets a signal meanwhile."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        process = subprocess.Popen(
            command(*words, "--url", f"http://127.0.0.1:{deaf.getsockname()[1]}"),
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        try:
            with deaf.accept()[0]:
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=LONGEST_S)
        finally:
            process.kill()
            process.wait()
    assert Result(process.returncode, "", err).line == f"loadgen: {line}"
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


# Full disks and closed pipes


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_is_exit_code_4_and_what_was_measured_can_be_reported(tiny_disk, tmp_path):
    # Some 20 kB a second at most: the first segments fit, whatever the speed of this machine.
    with spawn(Law(ttft_s=0.001, gap_s=0.001), presents="openai") as quick:
        path = profile(tmp_path, load={"concurrency": 4, "duration_s": 60})
        result = run_there(
            *("run", path, "--url", quick.url, "--output-tokens", 64, "--out", tiny_disk / "run", "--json"),
            "--no-progress",
        )
    assert (result.code, result.out) == (4, "")
    assert "No space left on device" in result.line
    assert f"loadgen report {tiny_disk / 'run'} shows what was measured until then" in result.line
    assert not list(tiny_disk.rglob("*.tmp"))
    report = run_here("report", tiny_disk / "run", "--json", "--html", tmp_path / "report.html")
    assert (report.code, report.err) == (0, "")
    assert report.json()["requests"]["completed"] > 0


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "left"), [(500, []), (200_000, [name for name in FILES if name != "report.html"])])
def test_no_room_for_one_of_the_files_is_one_line_and_keeps_the_others(emulator, tmp_path, size, left):
    """500 bytes do not take the manifest, 200 kB everything but the report."""
    path = profile(tmp_path)
    with largest_file(size):
        result = run_here("run", path, "--url", emulator.url, "--out", tmp_path / "run", "--json", "--no-progress")
    assert (result.code, result.out) == (4, "")
    assert "File too large" in result.line
    assert sorted(os.listdir(tmp_path / "run")) == left
    if left:
        assert len(rows(tmp_path / "run")) == 4
        assert run_here("report", tmp_path / "run", "--json").json()["requests"]["completed"] == 4


def test_an_open_loop_may_open_as_many_connections_as_the_system_grants(tmp_path):
    """Found with 200 files allowed and 4,096 to be had: connections that we could not open counted as refused."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = profile(tmp_path, load={"arrivals": "burst", "requests": 1}, work={"prompt_tokens": 8, "output_tokens": 1})
    low = min(256, before[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    try:
        with spawn(Law(ttft_s=0.01), presents="openai") as here:
            run_here("run", path, "--url", here.url, "--out", tmp_path / "run", "--quiet")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(65_536, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_connections_than_the_system_grants_are_refused_beforehand(emulator, tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    path = profile(tmp_path, load={"concurrency": hard, "requests": hard})
    result = run_here("run", path, "--url", emulator.url, "--out", tmp_path / "run")
    assert (result.code, result.out) == (2, "")
    assert f"{hard} connections need {hard + 64} open files, the limit is {hard} (ulimit -n)" in result.line


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_results_that_cannot_be_printed_are_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--version"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONGEST_S)
    assert done.returncode == 4
    assert Result(4, "", done.stderr).line == "loadgen: the results cannot be printed: No space left on device"


def test_a_reader_that_leaves_early_is_no_error_message():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("--version"), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=LONGEST_S)
    os.close(writer)
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["run"], ["agents", "--scenario", "chimera_homo"], ["runtimes"]], ids=lambda w: w[0])
def test_a_url_beside_the_emulator_is_refused(words: list[str]) -> None:
    result = run_here(*words, "--emulator", "--url", "http://127.0.0.1:1")
    assert result.code == 2
    assert result.err.startswith("loadgen: --emulator starts a server of its own to measure")
