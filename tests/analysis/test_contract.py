"""What analysis takes from the rest of the house: the journal's files, and `loadgen.record` alone."""

import ast
from pathlib import Path

import numpy as np

import analysis
from loadgen.record import Kind, Outcome, Record, TokensFrom
from loadgen.store import journal
from tests.analysis.handmade import SCHEMA, plain

PACKAGE = Path(analysis.__file__).parent


def test_the_columns_are_those_the_journal_writes():
    def plain(kind):
        return f"list<{kind.value_type}>" if str(kind).startswith("list") else str(kind)

    ours = {field.name: plain(field.type) for field in SCHEMA}
    assert ours == {field.name: plain(field.type) for field in journal.SCHEMA}


def records(n):
    for seq in range(n):
        failed = seq % 10 == 9
        at = np.array([], np.int64) if failed else np.array([50, 70, 90], np.int64) * 1_000_000 + seq * 10_000_000
        yield Record(
            run=0,
            seq=seq,
            endpoint="a",
            intended_ns=seq * 10_000_000,
            sent_ns=seq * 10_000_000 + 1_000,
            done_ns=seq * 10_000_000 + 95_000_000,
            outcome=Outcome.RESET if failed else Outcome.OK,
            error="gone" if failed else None,
            event_ns=at,
            event_kind=np.full(len(at), Kind.CONTENT, np.uint8),
            event_read=np.arange(len(at), dtype=np.int32),
            event_tokens=np.ones(len(at), np.int32) if seq % 2 else None,
            output_tokens=None if failed else 3,
            tokens_from=None if failed else TokensFrom.USAGE,
        )


def test_records_come_through_the_journal_as_they_were(tmp_path):
    writer = journal.Journal(tmp_path / "journal")
    for index, record in enumerate(records(100)):
        writer.append(record)
        if index % 30 == 29:
            writer.flush()
    writer.flush()
    crashed = analysis.summarise(tmp_path)
    journal.close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    closed = analysis.summarise(tmp_path)
    assert closed.metrics == crashed.metrics
    assert closed.requests.failed == {"reset": 10}
    assert plain(closed.errors) == [{"outcome": "reset", "status": None, "error": "gone", "n": 10}]
    assert closed.metrics.ttft_ms.p50.value == 50
    assert closed.metrics.tpot_ms.mean.value == 20
    assert closed.metrics.itl_ms.p90.value == 20


def test_analysis_imports_nothing_of_loadgen_but_the_record():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names += [f"loadgen.{alias.name}" for alias in node.names] if module == "loadgen" else [module]
            for name in names:
                assert not name.startswith("loadgen") or name in (
                    "loadgen.record",
                    "loadgen.manifest",
                    "loadgen.suite_manifest",
                    "loadgen.latency",
                ), name
                assert name.split(".")[0] not in ("time", "asyncio", "socket", "urllib", "aiohttp", "datetime"), path


def test_importing_analysis_does_not_import_what_is_slow():
    import subprocess
    import sys

    code = "import analysis, sys; print([n for n in ('scipy.stats', 'plotly', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"
