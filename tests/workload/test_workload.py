"""Workloads: the same request from (seed, run, seq) anywhere, of the length asked for, with no shared cache block."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.manifest import WorkloadFacts
from loadgen.profile import Work
from loadgen.profile.work import Dist
from loadgen.wire import Ask
from loadgen.workload import Synthetic, Workload, open_workload, tokenizer_count
from loadgen.workload.lengths import draw
from loadgen.workload.text import PREFIX_WORDS, Text, Vocabulary

SPREAD = {
    "prompt_tokens": {"lognormal": {"mean": 300, "sd": 200}},
    "output_tokens": {"uniform": {"low": 1, "high": 99}},
}


def a_workload(seed: int = 1, run: int = 0, count: Any = None, **work: Any) -> Workload:
    return open_workload(Work.model_validate(work), seed, run=run, count=count)


def prompt(ask: Ask) -> str:
    assert ask.prompt is not None
    return ask.prompt


def bpe_like(texts: Sequence[str]) -> list[int]:
    """A begin-of-text token, then 1 token a word of up to 7 letters and 2 a longer one: split at spaces like BPE."""
    return [1 + sum(1 + (len(word) > 7) for word in text.split()) for text in texts]


# --- the same everywhere ---


@given(seed=st.integers(0, 2**63 - 1), seqs=st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
@settings(max_examples=20)
def test_an_ask_depends_on_seed_run_and_seq_but_not_on_the_order_of_asking(seed, seqs):
    one, other = a_workload(seed, **SPREAD), a_workload(seed, **SPREAD)
    forward = {seq: one.ask(seq) for seq in seqs}
    assert {seq: other.ask(seq) for seq in reversed(seqs)} == forward


def _share(pickled: bytes, worker: int, workers: int, count: int) -> list[tuple[int, Ask]]:
    workload = pickle.loads(pickled)
    return [(seq, workload.ask(seq)) for seq in range(worker, count, workers)]


@pytest.mark.parametrize("kind", ["synthetic", "dataset"])
def test_workers_together_ask_what_one_would(kind, tmp_path):
    workload = a_workload(**SPREAD) if kind == "synthetic" else a_workload(dataset=_conversations(tmp_path / "d", 50))
    pickled = pickle.dumps(workload)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(_share, pickled, worker, 2, 3000) for worker in range(2)]
        asked = dict(pair for share in shares for pair in share.result())
    assert [asked[seq] for seq in range(3000)] == [workload.ask(seq) for seq in range(3000)]


def test_another_run_asks_something_else_and_can_be_had_again():
    workload = a_workload(**SPREAD)
    second = workload.for_run(2)
    assert [second.ask(s) for s in range(5)] == [a_workload(run=2, **SPREAD).ask(s) for s in range(5)]
    assert all(second.ask(s) != workload.ask(s) for s in range(5))
    assert workload.ask(0) == a_workload(**SPREAD).ask(0)


# --- unique prefixes ---


def test_consecutive_requests_differ_from_their_first_word_on():
    workload = a_workload(prompt_tokens=40)
    firsts = [prompt(workload.ask(seq)).split()[0] for seq in range(1024)]
    assert len(set(firsts)) == 1024


def test_no_two_prefixes_are_alike_over_seqs_runs_and_seeds():
    seqs = [*range(3000), 2**20 - 1, 2**20, 2**30 - 1, 99_999_999]
    heads = [
        tuple(prompt(workload.ask(seq)).split()[:PREFIX_WORDS])
        for seed in (1, 2)
        for run in (0, 1, 511)
        for workload in [a_workload(seed, run, prompt_tokens=20)]
        for seq in seqs
    ]
    assert len(set(heads)) == len(heads) == 6 * len(seqs)


def test_a_shared_prefix_is_the_same_in_every_run_and_a_unique_one_follows_it():
    work = {"prompt_tokens": 100, "cache": "shared", "shared_prefix_tokens": 60}
    texts = [prompt(a_workload(run=run, **work).ask(seq)).split() for run in (0, 1) for seq in range(50)]
    assert len({tuple(words[:60]) for words in texts}) == 1
    assert len({tuple(words[60 : 60 + PREFIX_WORDS]) for words in texts}) == 100
    assert {len(words) for words in texts} == {100}


def test_without_a_cache_policy_prompts_carry_no_prefix_and_still_start_anywhere():
    workload = a_workload(prompt_tokens=20, cache="none")
    assert workload.describe().unique_prefix_words == 0
    assert len({prompt(workload.ask(seq)) for seq in range(Text.LENGTH)}) == Text.LENGTH


def test_a_system_text_takes_the_prefix_in_front_of_it():
    ask = a_workload(prompt_tokens=20, system="Be brief.").ask(3)
    assert ask.prompt is None
    system, user = ask.messages
    assert (system["role"], user["role"]) == ("system", "user")
    assert re.fullmatch(r"([a-z]+ ){5}[a-z]+\n\nBe brief\.", system["content"])
    assert len(user["content"].split()) == 20


def test_a_shared_prefix_goes_before_the_system_text_and_the_unique_one_after_it():
    asks = [
        a_workload(prompt_tokens=90, system="Be brief.", cache="shared", shared_prefix_tokens=60).ask(s) for s in (0, 1)
    ]
    (one, first), (two, second) = (ask.messages for ask in asks)
    assert one == two
    assert first["content"].split()[0] != second["content"].split()[0]


# --- lengths ---


@pytest.mark.parametrize(
    ("dist", "mean", "sd"),
    [
        (Dist(fixed=7), 7, 0),
        (Dist.model_validate({"uniform": {"low": 10, "high": 19}}), 14.5, math.sqrt(99 / 12)),
        (Dist.model_validate({"normal": {"mean": 500, "sd": 50}}), 500, 50),
        (Dist.model_validate({"lognormal": {"mean": 512, "sd": 256}}), 512, 256),
    ],
)
def test_lengths_have_the_mean_and_sd_asked_for(dist, mean, sd):
    drawn = draw(dist, np.random.default_rng(1), 200_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.005)
    assert drawn.std() == pytest.approx(sd, rel=0.02)


def test_lengths_are_clamped_to_min_and_max():
    dist = Dist.model_validate({"normal": {"mean": 50, "sd": 100, "min": 20, "max": 80}})
    drawn = draw(dist, np.random.default_rng(1), 10_000)
    assert (drawn.min(), drawn.max()) == (20, 80)


def test_a_uniform_length_reaches_both_ends():
    drawn = draw(Dist.model_validate({"uniform": {"low": 3, "high": 5}}), np.random.default_rng(1), 1000)
    assert set(drawn.tolist()) == {3, 4, 5}


def test_output_lengths_are_drawn_apart_from_prompt_lengths():
    same = {"uniform": {"low": 100, "high": 10_000}}
    workload = a_workload(prompt_tokens=same, output_tokens=same)
    asks = [workload.ask(seq) for seq in range(2000)]
    pairs = np.array([(ask.input_tokens, ask.output_tokens) for ask in asks])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.1


def test_null_output_tokens_set_no_cap():
    assert a_workload(output_tokens=None).ask(0).output_tokens is None


@given(tokens=st.integers(8, 2000), seq=st.integers(0, 10**8), cache=st.sampled_from(["unique", "none"]))
@settings(max_examples=50)
def test_with_a_tokenizer_every_prompt_has_exactly_its_tokens(tokens, seq, cache):
    vocabulary = Vocabulary.calibrated(bpe_like, "exact-tokenizer")
    workload = Synthetic(Work.model_validate({"prompt_tokens": tokens, "cache": cache}), 1, vocabulary=vocabulary)
    ask = workload.ask(seq)
    assert bpe_like([prompt(ask)]) == [tokens] == [ask.input_tokens]


def test_exact_lengths_say_so_and_leave_out_words_of_several_tokens():
    workload = a_workload(prompt_tokens={"uniform": {"low": 20, "high": 700}}, count=bpe_like)
    assert workload.describe().method == "exact-tokenizer"
    asks = [workload.ask(seq) for seq in range(500)]
    assert bpe_like([prompt(ask) for ask in asks]) == [ask.input_tokens for ask in asks]
    assert max(len(word) for ask in asks for word in prompt(ask).split()) <= 7


def test_the_servers_own_tokenizer_is_told_apart():
    workload = open_workload(Work.model_validate({}), 1, count=bpe_like, method="server-tokenize")
    assert workload.describe().method == "server-tokenize"


def test_a_tokenizer_whose_counts_do_not_add_up_gives_a_measured_ratio_and_says_so():
    def by_letters(texts: Sequence[str]) -> list[int]:
        return [len(text) // 3 for text in texts]

    workload = a_workload(prompt_tokens=600, count=by_letters)
    assert workload.describe().method == "ratio"
    lengths = by_letters([prompt(workload.ask(seq)) for seq in range(200)])
    assert np.mean(lengths) == pytest.approx(600, rel=0.05)


def test_single_words_of_equal_count_do_not_pass_for_a_count_that_adds_up():
    def in_pairs(texts: Sequence[str]) -> list[int]:
        return [(len(text.split()) + 1) // 2 for text in texts]

    workload = a_workload(prompt_tokens=600, count=in_pairs)
    assert workload.describe().method == "ratio"
    assert in_pairs([prompt(workload.ask(0))]) == [pytest.approx(600, abs=5)]


def test_without_a_tokenizer_the_ratio_sizes_prompts_and_can_be_learnt():
    workload = a_workload(prompt_tokens=600)
    assert (workload.describe().method, workload.describe().tokens_per_word) == ("ratio", 1.0)
    assert len(prompt(workload.ask(0)).split()) == 600
    workload.learn(1.5)
    assert len(prompt(workload.ask(0)).split()) == pytest.approx(400, abs=1)
    assert workload.ask(0).input_tokens == 600


def test_learning_does_not_touch_exact_lengths():
    workload = a_workload(prompt_tokens=600, count=bpe_like)
    before = workload.ask(5)
    workload.learn(3.0)
    assert workload.ask(5) == before
    with pytest.raises(ValueError, match="must be > 0"):
        workload.learn(0.0)


@pytest.mark.parametrize("count", [None, bpe_like])
def test_a_length_too_short_for_its_prefix_is_raised_and_told(count):
    workload = a_workload(prompt_tokens=1, count=count)
    ask = workload.ask(0)
    assert len(prompt(ask).split()) == PREFIX_WORDS + 1
    assert ask.input_tokens == workload.describe().least_prompt_tokens == PREFIX_WORDS + (2 if count else 1)


def test_a_prompt_may_be_longer_than_the_text_it_is_cut_from():
    words = prompt(a_workload(prompt_tokens=200_000).ask(1)).split(" ")
    assert len(words) == 200_000
    assert all(words)


# --- datasets ---


def _lines(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def _conversations(path: Path, count: int) -> str:
    turns = [
        [{"from": "human", "value": f"question {i}"}, {"from": "gpt", "value": "word " * (i + 1)}] for i in range(count)
    ]
    path.write_text(json.dumps([{"id": str(i), "conversations": t} for i, t in enumerate(turns)]))
    return str(path)


def test_prompts_keep_their_text_behind_the_prefix(tmp_path):
    place = _lines(tmp_path / "p.jsonl", {"prompt": "Why?", "output_tokens": 9}, "", {"prompt": "How?"})
    workload = a_workload(dataset=place, order="sequential")
    assert re.fullmatch(r"([a-z]+ ){5}[a-z]+\n\nWhy\?", prompt(workload.ask(0)))
    assert [workload.ask(seq).output_tokens for seq in range(3)] == [9, None, 9]
    plain = a_workload(dataset=place, order="sequential", cache="none")
    assert [prompt(plain.ask(seq)) for seq in range(3)] == ["Why?", "How?", "Why?"]


def test_messages_take_the_prefix_in_their_first_system_or_user_message(tmp_path):
    chat = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Why?"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
    workload = a_workload(
        dataset=_lines(tmp_path / "m.jsonl", {"messages": chat}, {"messages": parts}), order="sequential"
    )
    first, second = workload.ask(0).messages, workload.ask(1).messages
    assert first[0] == chat[0]
    assert re.fullmatch(r"([a-z]+ ){5}[a-z]+\n\nWhy\?", first[1]["content"])
    assert second[0]["content"][1] == parts[0]["content"][0]
    assert len(second[0]["content"][0]["text"].split()) == PREFIX_WORDS
    again = workload.ask(0).messages
    assert again == first
    assert again is not first  # the entry itself has not changed


def test_the_first_turn_of_a_conversation_is_the_prompt_and_its_answer_the_length(tmp_path):
    workload = a_workload(dataset=_conversations(tmp_path / "s.json", 30), order="sequential", cache="none")
    assert (workload.describe().format, workload.describe().method) == ("sharegpt", "ratio")
    assert prompt(workload.ask(29)) == "question 29"
    assert workload.ask(29).output_tokens == 40  # 30 words at 4/3 tokens each
    workload.learn(1.0)
    assert workload.ask(29).output_tokens == 30
    counted = a_workload(dataset=_conversations(tmp_path / "s.json", 30), order="sequential", count=bpe_like)
    assert (counted.ask(29).output_tokens, counted.ask(29).input_tokens) == (31, 1 + 3)  # "question" has 8 letters


def test_conversations_without_a_human_opening_are_left_out_and_counted(tmp_path):
    good = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    bad = {"conversations": [{"from": "gpt", "value": "b"}]}
    facts = a_workload(dataset=_lines(tmp_path / "s.jsonl", bad, good, {"conversations": []})).describe()
    assert (facts.entries, facts.skipped) == (1, 2)
    with pytest.raises(UsageError, match="no entry to send"):
        a_workload(dataset=_lines(tmp_path / "none.jsonl", bad))


def test_every_entry_is_sent_once_before_any_comes_again_and_shuffled_anew(tmp_path):
    workload = a_workload(dataset=_conversations(tmp_path / "s.json", 30), cache="none")
    rounds = [[prompt(workload.ask(seq)) for seq in range(start, start + 30)] for start in (0, 30)]
    assert sorted(rounds[0]) == sorted(rounds[1])
    assert len(set(rounds[0])) == 30
    assert rounds[0] != rounds[1]


def test_a_profile_may_set_the_output_length_and_a_system_text(tmp_path):
    own = {"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "Why?"}], "output_tokens": 9}
    none = {"messages": [{"role": "user", "content": "How?"}]}
    place = _lines(tmp_path / "m.jsonl", own, none)
    workload = a_workload(dataset=place, order="sequential", cache="none", output_tokens=5, system="Given.")
    assert [workload.ask(0).messages[0]["content"], workload.ask(1).messages[0]["content"]] == ["Own.", "Given."]
    assert workload.ask(0).output_tokens == 5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: is not JSON: "),
        ("[1]", 'line 2: is not an object, write e.g. {"prompt": "..."}'),
        ('{"prompt": ""}', "line 2: needs prompt, a text that is not empty"),
        ('{"messages": []}', "line 2: needs prompt, a text that is not empty"),
        ('{"prompt": "a", "output_tokens": 0}', "line 2: output_tokens must be a whole number >= 1, got 0"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path, line, told):
    place = _lines(tmp_path / "p.jsonl", {"prompt": "a"}, line)
    with pytest.raises(UsageError) as caught:
        a_workload(dataset=place)
    assert str(caught.value).startswith(f"{place}: {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"text": "a"}, "has none of conversations, messages, prompt, give it one"),
        ({"messages": []}, "needs messages, a list that is not empty"),
        ({"messages": ["a"]}, "messages[0] needs role and content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages need one of role system or user, add it"),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be text or a list of parts"),
        ({"conversations": "a"}, "needs conversations, a list of turns"),
        ({"conversations": [{"from": "human"}]}, "conversations[0] needs from and value"),
    ],
)
def test_a_bad_entry_is_told_with_its_cure(tmp_path, entry, told):
    with pytest.raises(UsageError) as caught:
        a_workload(dataset=_lines(tmp_path / "p.jsonl", entry))
    assert str(caught.value).startswith(f"{tmp_path}/p.jsonl: line 1: {told}")


def test_a_missing_or_empty_dataset_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.jsonl: cannot be read: No such file or directory"):
        a_workload(dataset="nowhere.jsonl")
    with pytest.raises(UsageError, match=r"no entry to send \(empty\)"):
        a_workload(dataset=_lines(tmp_path / "e.jsonl"))


def test_an_array_tells_the_number_of_the_bad_entry(tmp_path):
    (tmp_path / "a.json").write_text('[{"prompt": "a"}, {"prompt": 5}]')
    with pytest.raises(UsageError, match=r"a.json: entry 2: needs prompt"):
        a_workload(dataset=str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text('[{"prompt": "a"},\n\n oops]')
    with pytest.raises(UsageError, match=r"a.json: line 3: is not JSON"):
        a_workload(dataset=str(tmp_path / "a.json"))


def test_a_tokenizer_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"tokenizer.json: (no such file|needs the package)"):
        tokenizer_count(tmp_path)


def test_a_tokenizer_directory_counts_without_special_tokens(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("[UNK] $A", special_tokens=[("[UNK]", 2)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_count(tmp_path)(["a b", "a"]) == [2, 1]


# --- describing ---


@pytest.mark.parametrize(
    "work",
    [{}, {"cache": "none"}, {"system": "x"}, {"cache": "shared", "shared_prefix_tokens": 9, "output_tokens": None}],
)
def test_a_description_is_plain_json_and_states_method_cache_and_sizes(work):
    facts = a_workload(**work).describe()
    assert msgspec.json.decode(msgspec.json.encode(facts), type=WorkloadFacts) == facts
    keys = {"method", "cache", "source", "prompt_tokens", "output_tokens", "unique_prefix_at", "seed"}
    assert keys <= msgspec.to_builtins(facts).keys()
