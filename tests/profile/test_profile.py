"""Profiles: what a file may say, what is left out means, and one line for every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.profile import Profile, load, shipped
from loadgen.profile.loads import LOAD, Burst, Closed, Open, Staged, resolved
from loadgen.profile.reference import PAGE, reference_markdown, with_reference
from loadgen.profile.settings import OBJECTIVES
from loadgen.profile.work import Dist

MINIMAL = "load: {concurrency: 8, requests: 100}\n"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Load a profile from text, as x.yaml in the working directory."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, **overrides: object) -> Profile:
        Path("x.yaml").write_text(text, encoding="utf-8")
        return load("x.yaml", overrides)

    return read


# --- shipped profiles ---


def test_seven_profiles_are_shipped():
    names = ["agents-30", "agents-scaling", "burst", "open-loop", "quickstart", "ramp", "soak"]
    assert list(shipped()) == names


@pytest.mark.parametrize("name", ["burst", "open-loop", "quickstart", "ramp", "soak"])
def test_a_shipped_profile_loads_and_its_first_line_asks_a_question(name):
    assert load(name).targets == ()
    first = shipped()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert "?" in first


def test_quickstart_is_small_and_closed():
    profile = load("quickstart")
    assert (profile.load.arrivals, profile.load.concurrency, profile.load.requests) == ("closed", 8, 200)
    assert profile.work.output_tokens == Dist(fixed=64)


# --- what is left out ---


@pytest.mark.parametrize(
    ("text", "arrivals"),
    [
        ("{concurrency: 8, requests: 1}", "closed"),
        ("{rate_per_s: 8, requests: 1}", "poisson"),
        ("{rate_per_s: 8, requests: 1, burstiness: 0.5}", "gamma"),
        ("{rate_per_s: 8, requests: 1, mmpp: {burst_s: 2, calm_s: 10}}", "mmpp"),
        ("{stages: [{concurrency: 2, duration_s: 3}]}", "closed"),
        ("{stages: [{rate_per_s: 2, duration_s: 3}]}", "poisson"),
    ],
)
def test_arrivals_follow_from_the_rest(read, text, arrivals):
    assert read(f"load: {text}").load.arrivals == arrivals


def test_lengths_have_defaults_only_without_a_dataset(read):
    work = read(MINIMAL).work
    assert (work.prompt_tokens, work.output_tokens) == (Dist(fixed=512), Dist(fixed=128))
    work = read(MINIMAL + "work: {dataset: a.jsonl}").work
    assert (work.prompt_tokens, work.output_tokens) == (None, None)


def test_null_output_tokens_leave_the_length_to_the_server(read):
    assert read(MINIMAL + "work: {output_tokens: null}").work.output_tokens is None


def test_a_target_is_named_after_its_host_and_port(read):
    profile = read(MINIMAL + "target: [{url: 'http://a:8000/'}, {url: 'https://b'}, {url: 'http://c', name: third}]")
    assert [t.name for t in profile.targets] == ["a:8000", "b:443", "third"]
    assert profile.targets[0].url == "http://a:8000"


def test_one_target_may_stand_without_a_list(read):
    assert [t.url for t in read(MINIMAL + "target: {url: 'http://a:1'}").targets] == ["http://a:1"]


def test_a_bare_number_is_a_fixed_length(read):
    assert read(MINIMAL + "work: {prompt_tokens: 7}").work.prompt_tokens == Dist(fixed=7)


def test_scientific_notation_is_a_number(read):
    assert read("load: {rate_per_s: 1e1, requests: 5}").load.rate_per_s == 10


def test_every_metric_and_statistic_makes_an_objective(read):
    names = ", ".join(f"{name}: 0.5" for name in sorted(OBJECTIVES))
    assert len(read(f"{MINIMAL}objectives: {{{names}}}").objectives) == 7 * 6 + 4


def test_file_names_are_relative_to_the_profile(tmp_path):
    (tmp_path / "p.yaml").write_text(
        MINIMAL + "work: {dataset: d.jsonl}\ntarget: {url: 'http://a:1', tokenizer: /abs, ca_file: ca.pem}"
    )
    profile = load(tmp_path / "p.yaml")
    assert profile.work.dataset == str(tmp_path / "d.jsonl")
    assert (profile.targets[0].tokenizer, profile.targets[0].ca_file) == ("/abs", str(tmp_path / "ca.pem"))


def test_a_profile_cannot_be_changed(read):
    profile = read(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        profile.load.requests = 3


# --- faults: one line, the file, the path, the value, the cure ---

FAULTS = {
    "load: {ratee: 5}": "load.ratee is not a known key (did you mean rate_per_s?)",
    "targets: {}": "targets is not a known key (did you mean target?)",
    MINIMAL + "7: 5": (f"7 is not a known key; known keys: {', '.join(Profile.model_fields)}"),
    "": "load needs concurrency (a closed loop) or rate_per_s (an open loop)",
    "[1]": "must be a mapping with load and work at its top, got a list",
    "load: 5": "load must be a mapping, got 5",
    "load: {stages: 5}": "load needs concurrency (a closed loop) or rate_per_s (an open loop)",
    "load: {concurrency: '8', requests: 5}": "load.concurrency must be a whole number, got '8'",
    "load: {concurrency: 8.5, requests: 5}": "load.concurrency must be a whole number, got 8.5",
    "load: {rate_per_s: fast, requests: 5}": "load.rate_per_s must be a number, got 'fast'",
    "load: {rate_per_s: .inf, requests: 5}": "load.rate_per_s must be a finite number, got inf",
    "load: {concurrency: 0, requests: 5}": "load.concurrency must be >= 1, got 0",
    "load: {arrivals: posson, rate_per_s: 4, requests: 2}": (
        "load.arrivals must be one of closed, poisson, constant, gamma, mmpp, burst, got 'posson'"
        " (did you mean poisson?)"
    ),
    "load: {stages: [{rate_per_s: 1, duration_s: 1}, {rate_per_s: -5, duration_s: 1}]}": (
        "load.stages[1].rate_per_s must be > 0, got -5"
    ),
    "load: {concurrency: 8}": "load needs requests or duration_s, else it would never end",
    "load: {concurrency: 8, rate_per_s: 3, requests: 5}": (
        "load has both concurrency and rate_per_s: keep one (max_in_flight is the cap of an open loop)"
    ),
    "load: {arrivals: closed, rate_per_s: 5, requests: 4}": (
        "load.rate_per_s has no meaning when arrivals is closed: remove it, or set arrivals to poisson"
    ),
    "load: {arrivals: closed, requests: 4}": "load needs concurrency when arrivals is closed",
    "load: {arrivals: gamma, requests: 4}": "load needs rate_per_s when arrivals is gamma",
    "load: {arrivals: mmpp, rate_per_s: 5, requests: 4}": (
        "load needs mmpp: {burst_s: ..., calm_s: ...} when arrivals is mmpp"
    ),
    "load: {arrivals: poisson, rate_per_s: 5, requests: 4, mmpp: {burst_s: 1, calm_s: 1}}": (
        "load.mmpp has a meaning only when arrivals is mmpp: remove it, or set arrivals to mmpp"
    ),
    "load: {rate_per_s: 5, requests: 4, mmpp: {burst_s: 0.001, calm_s: 0.01}}": (
        "load.mmpp has bursts too short to tell from poisson: 0.055 requests from one to the next"
    ),
    "load: {arrivals: mmpp, mmpp: {burst_s: 1, calm_s: 9}, stages: [{rate_per_s: 5, requests: 4}]}": (
        "load.stages cannot go with arrivals mmpp, whose bursts have one mean rate: remove them"
    ),
    "load: {rate_per_s: 5, requests: 4, mmpp: {burst_s: 1, calm_s: 9, calm_share: 1.0}}": (
        "load.mmpp.calm_share must be < 1, got 1.0"
    ),
    "load: {arrivals: poisson, concurrency: 5, requests: 4}": (
        "load.concurrency has no meaning when arrivals is poisson: use max_in_flight to cap it"
    ),
    "load: {concurrency: 5, max_in_flight: 5, requests: 4}": (
        "load.max_in_flight has no meaning when arrivals is closed: concurrency is its cap, remove it"
    ),
    "load: {arrivals: poisson, rate_per_s: 5, burstiness: 1.0, requests: 4}": (
        "load.burstiness has a meaning only when arrivals is gamma: remove it, or set arrivals to gamma"
    ),
    "load: {arrivals: burst}": "load needs requests when arrivals is burst: that many are sent at once",
    "load: {arrivals: burst, requests: 4, duration_s: 5}": (
        "load.duration_s has no meaning when arrivals is burst: all requests are sent at once, remove it"
    ),
    "load: {arrivals: burst, requests: 4, warmup_s: 5}": (
        "load.warmup_s has no meaning when arrivals is burst: there is no steady part to reach, remove it"
    ),
    "load: {arrivals: burst, stages: [{rate_per_s: 1, duration_s: 5}]}": (
        "load.stages have no meaning when arrivals is burst: remove them"
    ),
    "load: {concurrency: 8, requests: 5, warmup_s: 1, warmup_requests: 1}": (
        "load.warmup_requests and warmup_s are both given: keep one"
    ),
    "load: {requests: 5, stages: [{rate_per_s: 1, duration_s: 5}]}": (
        "load.requests has no meaning beside stages: each stage has its own, remove it"
    ),
    "load: {stages: [{rate_per_s: 1}]}": "load.stages[0] needs exactly one of duration_s and requests",
    "load: {stages: [{rate_per_s: 1, concurrency: 2, duration_s: 5}]}": (
        "load.stages[0] needs exactly one of rate_per_s and concurrency"
    ),
    "load: {stages: [{rate_per_s: 1, duration_s: 5}, {concurrency: 2, duration_s: 5}]}": (
        "load.stages[1] needs rate_per_s: arrivals is poisson"
    ),
    "load: {stages: [{concurrency: 1, requests: 5}]}": (
        "load.stages[0] needs duration_s: the stages of a closed loop are set by time, not by requests"
    ),
    "load: {stages: [{concurrency: 1, duration_s: 5, ramp_to: 2.5}]}": (
        "load.stages[0].ramp_to must be a whole number of requests in flight, got 2.5"
    ),
    "load: {warmup_requests: 2, stages: [{concurrency: 1, duration_s: 5}]}": (
        "load.warmup_requests cannot go with a closed loop's stages, which are set by time: use warmup_s"
    ),
    "load: {rate_per_s: 1000000, duration_s: 1000000}": (
        "load would schedule about 1e+12 requests, more than 1e+08: lower the rate or the duration"
    ),
    MINIMAL + "work: {prompt_tokens: -5}": "work.prompt_tokens must be >= 1, got -5",
    MINIMAL + "work: {prompt_tokens: many}": (
        "work.prompt_tokens must be a number of tokens or one of fixed, uniform, normal, lognormal, got 'many'"
    ),
    MINIMAL + "work: {prompt_tokens: {lognorm: {mean: 5, sd: 3}}}": (
        "work.prompt_tokens.lognorm is not a known key (did you mean lognormal?)"
    ),
    MINIMAL + "work: {prompt_tokens: {lognormal: {mean: 5}}}": "work.prompt_tokens.lognormal.sd is missing, add it",
    MINIMAL + "work: {prompt_tokens: {fixed: 3, uniform: {low: 1, high: 2}}}": (
        "work.prompt_tokens needs exactly one of fixed, uniform, normal, lognormal, got fixed and uniform"
    ),
    MINIMAL + "work: {prompt_tokens: {uniform: {low: 5, high: 2}}}": (
        "work.prompt_tokens.uniform.high must be at least low (5), got 2"
    ),
    MINIMAL + "work: {output_tokens: {normal: {mean: 5, sd: 1, min: 8}}}": (
        "work.output_tokens.normal.mean must lie between min (8) and max (10000000), got 5"
    ),
    MINIMAL + "work: {prompt_tokens: 5, dataset: a.jsonl}": (
        "work.prompt_tokens has no meaning beside dataset, whose prompts have their own length: remove it"
    ),
    MINIMAL + "work: {order: sequential}": "work.order has a meaning only beside dataset: remove it",
    MINIMAL + "work: {cache: shared}": "work needs shared_prefix_tokens when cache is shared",
    MINIMAL + "work: {shared_prefix_tokens: 5}": (
        "work.shared_prefix_tokens has no meaning when cache is unique: remove it, or set cache to shared"
    ),
    MINIMAL + "work: {cache: shared, shared_prefix_tokens: 50, prompt_tokens: 50}": (
        "work.shared_prefix_tokens must be smaller than the longest prompt (50), got 50"
    ),
    MINIMAL + "target: 5": "target must be a mapping with url, or a list of them, got 5",
    MINIMAL + "target: {name: x}": "target.url is missing, add it",
    MINIMAL + "target: {url: 'localhost:8000'}": (
        "target.url must start with http:// or https:// and name a host, got 'localhost:8000'"
    ),
    MINIMAL
    + "target: {url: 'http://x:8000', path: v1}": "target.path must start with /, e.g. /v1/completions, got 'v1'",
    MINIMAL + "target: [{url: 'http://x'}, {url: 'http://y', api: grpc}]": (
        "target[1].api must be one of auto, openai, ollama, lmstudio, got 'grpc'"
    ),
    MINIMAL + "target: [{url: 'http://x'}, {url: 'http://x'}]": (
        "target has two entries named x:80: name each server once, or give each its own name"
    ),
    MINIMAL + "target: {url: 'http://x', weight: 0}": "target.weight must be > 0, got 0",
    MINIMAL + "proxy: p:3128": "proxy must start with http:// or https:// and name a host",
    MINIMAL + "runs: yes": "runs must be a whole number, got true",
    MINIMAL + "seed: -1": "seed must be >= 0, got -1",
    MINIMAL
    + "objectives: {ttft_p98_ms: 4}": "objectives.ttft_p98_ms is not a known objective (did you mean ttft_p99_ms?)",
    MINIMAL + "objectives: {nonsense: 4}": (
        "objectives.nonsense is not a known objective, write e.g. ttft_p99_ms or error_rate"
    ),
    MINIMAL + "objectives: {error_rate: 5}": "objectives.error_rate must be a fraction from 0 to 1, got 5",
    MINIMAL + "objectives: {ttft_p99_ms: 0}": "objectives.ttft_p99_ms must be > 0, got 0",
    MINIMAL + "limits: {total_s: -1}": "limits.total_s must be > 0, got -1",
    "a: b: c": "line 1, column 5: mapping values are not allowed here",
    "load:\n  requests: 1\n  requests: 2": "line 3, column 3: the key requests is given twice, keep one",
    "load: [1": "line 1, column 9: expected ',' or ']', but got '<stream end>'",
}


@pytest.mark.parametrize(("text", "told"), FAULTS.items(), ids=[told[:60] for told in FAULTS.values()])
def test_a_fault_is_one_line_with_the_file_the_key_the_value_and_the_cure(read, text, told):
    with pytest.raises(UsageError) as caught:
        read(text)
    line = str(caught.value)
    assert line == f"x.yaml: {told}"
    assert "\n" not in line


KNOWN_KEYS = [
    *("load", "work", "target", "objectives", "limits", "arrivals", "concurrency", "rate_per_s", "requests", "stages"),
    *(
        "duration_s",
        "ramp_to",
        "burstiness",
        "mmpp",
        "burst_s",
        "calm_s",
        "prompt_tokens",
        "lognormal",
        "fixed",
        "mean",
        "sd",
        "url",
        "headers",
        "cache",
    ),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["http://a:1", "gamma", "shared", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN_KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(data=st.dictionaries(st.sampled_from(KNOWN_KEYS), ANYTHING, max_size=4))
def test_any_value_anywhere_makes_a_profile_or_one_line(data):
    try:
        load(None, data).resolved()
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017, most examples are faults, but not all


@given(text=st.text(max_size=60))
def test_random_text_is_refused_in_one_line(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_told(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"load: \xff")
    with pytest.raises(UsageError, match="is not UTF-8 text at byte 6"):
        load(tmp_path / "x.yaml")


def test_an_unknown_name_is_told_with_the_shipped_ones():
    with pytest.raises(UsageError, match=r"^quickstar: no such file or shipped profile \(did you mean quickstart\?\)$"):
        load("quickstar")
    with pytest.raises(
        UsageError, match="shipped profiles: agents-30, agents-scaling, burst, open-loop, quickstart, ramp, soak"
    ):
        load("zzz.yaml")


# --- overrides ---


def test_overrides_are_laid_over_the_file_and_nones_are_not_given(read):
    profile = read(MINIMAL, load={"requests": 5, "concurrency": None}, runs=3, target={"url": "http://a:1"})
    assert (profile.load.requests, profile.load.concurrency, profile.runs) == (5, 8, 3)


def test_overrides_alone_make_a_profile():
    assert load(None, {"load": {"concurrency": 2, "requests": 3}}).load.arrivals == "closed"


def test_a_concurrency_given_replaces_the_rate_of_the_file():
    assert load("open-loop", {"load": {"concurrency": 4}}).load.arrivals == "closed"
    assert isinstance(load("ramp", {"load": {"concurrency": 4, "requests": 9}}).load, Closed)


def test_a_rate_given_opens_the_closed_loop_of_the_file():
    profile = load("quickstart", {"load": {"rate_per_s": 4.0, "duration_s": 9.0}})
    assert (profile.load.arrivals, profile.load.requests, profile.load.duration_s) == ("poisson", None, 9.0)


def test_arrivals_named_in_the_file_give_way_to_a_rate_given(read):
    assert (
        read("load: {arrivals: closed, concurrency: 8, requests: 5}", load={"rate_per_s": 4.0}).load.arrivals
        == "poisson"
    )
    assert read("load: {arrivals: burst, requests: 5}", load={"rate_per_s": 4.0}).load.arrivals == "poisson"
    assert (
        read("load: {arrivals: constant, rate_per_s: 1, requests: 5}", load={"rate_per_s": 4.0}).load.arrivals
        == "constant"
    )


def test_other_arrivals_given_drop_the_burstiness_of_the_file(read):
    text = "load: {burstiness: 0.5, rate_per_s: 8, requests: 5}"
    assert read(text, load={"arrivals": "constant"}).load.arrivals == "constant"
    text = "load: {mmpp: {burst_s: 1, calm_s: 9}, rate_per_s: 8, requests: 5}"
    assert read(text, load={"arrivals": "constant"}).load.mmpp is None
    assert read(text, load={"concurrency": 2}).load.arrivals == "closed"
    assert read(text, load={"rate_per_s": 4.0}).load.arrivals == "mmpp"


def test_a_setting_given_reaches_every_target_of_the_file(read):
    text = MINIMAL + "target: [{url: 'http://a'}, {url: 'http://b'}]"
    assert [t.model for t in read(text, target={"model": "m"}).targets] == ["m", "m"]
    assert [t.url for t in read(text, target={"url": "http://c"}).targets] == ["http://c"]


def test_a_fault_in_an_override_is_blamed_on_the_command_line(read):
    with pytest.raises(UsageError, match=r"^command line: load.rate_per_s must be > 0, got -5$"):
        read(MINIMAL, load={"rate_per_s": -5})
    with pytest.raises(UsageError, match=r"^command line: target\[1\].url must start with http"):
        read(MINIMAL, target=[{"url": "http://a"}, {"url": "b"}])


# --- resolved ---


@pytest.mark.parametrize("name", ["burst", "open-loop", "quickstart", "ramp", "soak"])
def test_the_resolved_profile_is_plain_and_makes_the_same_profile(name):
    profile = load(name, {"target": {"url": "http://a:1", "options": {"temperature": 0.0}}})
    plain = json.loads(json.dumps(profile.resolved()))
    assert Profile.model_validate(plain) == profile


def test_secrets_never_reach_a_message(read):
    with pytest.raises(UsageError) as caught:
        read(MINIMAL + "target: {url: 'http://a', api_key_env: sk-12345}")
    assert str(caught.value) == (
        "x.yaml: target.api_key_env must be the name of an environment variable that holds the key, not the key itself"
    )
    for text in ("headers: {Authorization: 12345}", "headers: [sk-12345]", "url: 'http://me:sk-12345@a'"):
        with pytest.raises(UsageError) as caught:
            read(
                f"{MINIMAL}target: {{url: 'http://a', {text}}}" if "url" not in text else f"{MINIMAL}target: {{{text}}}"
            )
        assert "12345" not in str(caught.value)


def test_secrets_never_reach_the_resolved_profile(read):
    profile = read(
        MINIMAL + "proxy: 'http://me:s3cret@p:3128'\n"
        "target: {url: 'http://a/v1?api_key=s3cret&v=2', "
        "headers: {Authorization: Bearer s3cret, X-Api-Key: s3cret, X-Team: red}, "
        "options: {extra: [{api_key: s3cret}], max_tokens: 5}}"
    )
    plain = profile.resolved()
    assert "s3cret" not in json.dumps(plain)
    assert set(plain["target"][0]["headers"]) == {"Authorization", "X-Api-Key", "X-Team"}
    assert "red" not in plain["target"][0]["headers"].values()
    assert plain["target"][0]["options"]["max_tokens"] == 5
    assert plain["proxy"] == "http://p:3128"


def test_burstiness_is_resolved_only_where_it_means_something():
    assert "burstiness" not in load("open-loop").resolved()["load"]
    assert "mmpp" not in load("open-loop").resolved()["load"]
    gamma = LOAD.validate_python({"arrivals": "gamma", "rate_per_s": 4, "requests": 5})
    assert gamma.burstiness == 0.25


# --- the four kinds of load ---


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"concurrency": 2, "requests": 3}, Closed),
        ({"rate_per_s": 2.0, "requests": 3}, Open),
        ({"rate_per_s": 2.0, "duration_s": 3.0, "mmpp": {"burst_s": 1.0, "calm_s": 9.0}}, Open),
        ({"arrivals": "burst", "requests": 3}, Burst),
        ({"stages": [{"concurrency": 2, "duration_s": 3.0}]}, Staged),
        ({"stages": [{"rate_per_s": 2.0, "duration_s": 3.0}]}, Staged),
    ],
)
def test_the_kind_of_a_load_follows_from_its_keys_and_a_manifest_says_it_again(given, kind):
    chosen = LOAD.validate_python(given)
    assert type(chosen) is kind
    plain = resolved(chosen)
    assert {"concurrency", "rate_per_s", "requests", "duration_s", "max_in_flight", "stages"} <= set(plain)
    assert LOAD.validate_python(json.loads(json.dumps(plain))) == chosen


@pytest.mark.parametrize(
    ("given", "most_requests", "length_s", "most_in_flight"),
    [
        ({"concurrency": 2, "requests": 3, "duration_s": 4.0}, 3, 4.0, 2),
        ({"rate_per_s": 2.0, "duration_s": 4.0}, None, 4.0, None),
        ({"arrivals": "burst", "requests": 3, "max_in_flight": 2}, 3, None, 2),
        ({"stages": [{"concurrency": 2, "duration_s": 3.0, "ramp_to": 7.0}]}, None, 3.0, 7),
        ({"stages": [{"rate_per_s": 2.0, "duration_s": 3.0}, {"rate_per_s": 2.0, "requests": 3}]}, None, None, None),
    ],
)
def test_every_kind_of_load_says_when_it_ends_and_what_is_in_flight(given, most_requests, length_s, most_in_flight):
    chosen = LOAD.validate_python(given)
    assert (chosen.most_requests, chosen.length_s, chosen.most_in_flight) == (most_requests, length_s, most_in_flight)


def test_agents_bring_their_load_and_a_manifest_may_repeat_it_but_no_other(read):
    profile = read("agents: {scenario: chimera_homo, count: 3, rounds: 2}")
    assert profile.load == Closed(arrivals="closed", concurrency=3, requests=12)
    assert Profile.model_validate(json.loads(json.dumps(profile.resolved()))) == profile
    with pytest.raises(UsageError, match=r"^x.yaml: load has no meaning beside agents, whose calls are the load"):
        read("load: {concurrency: 3, requests: 11}\nagents: {scenario: chimera_homo, count: 3, rounds: 2}")


# --- the reference ---


def test_docs_hold_the_key_reference_of_today():
    page = PAGE.read_text(encoding="utf-8")
    assert with_reference(page) == page, "python -m loadgen.profile.reference writes it anew"


def test_every_key_of_a_profile_has_a_meaning():
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    assert [row for row in rows if row.endswith("|  |")] == []
    assert {"`target`", "`calm_share`", "`lognormal`", "`think_ms`"} <= {row.split("|")[1].strip() for row in rows}
