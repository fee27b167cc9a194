"""Make a tiny random Llama: a Hugging Face folder and, from the same weights, a GGUF file beside it.

Real servers need a model, and nothing may be downloaded: so 2.7 million random numbers and a byte-level BPE
tokenizer trained on the help texts that every Python carries. The text is gibberish, and that is fine: what
the tests check is how it travels. About one token in 24 is a lone byte of a multi-byte UTF-8 character,
so a stream has real holes in its characters. loadgen's prompt words are in the training text often enough that
most of them, but not all, become one token each, as in the vocabulary of a real model.

When an answer ends is set, not left to chance. Channel 0 of the residual stream is a constant: every embedding
has CONSTANT there and no layer writes to it. So the end token's logit depends on one weight, that of channel 0
in its row of the head:

    without --eos-every   its logit is about -30, as that of the other control tokens: an answer runs to its
                          max_tokens, even on a server that knows no ignore_eos
    with --eos-every N    an answer ends by itself, after about N tokens at temperature 1

    python tinymodel.py [--eos-every N] FOLDER        needs numpy, tokenizers, safetensors, gguf
"""

from __future__ import annotations

import argparse
import json
import math
import pydoc_data.topics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found, unused-ignore]
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file  # type: ignore[import-not-found, unused-ignore]
from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

Weights = dict[str, NDArray[np.float32]]

GGUF_NAME = "model-f32.gguf"
PROMPT_WORDS = Path(__file__).resolve().parents[2] / "loadgen" / "workload" / "words.txt"
TIMES = 50  # that each of them is in the training text, with and without a space before it

CONSTANT = 4.0  # channel 0 of the residual stream
NEVER = -8.0  # weight on that channel; times about 3.6 after the last norm
HEAD_STD = 2.0  # of the other tokens' logits, which are close to N(0, HEAD_STD^2)

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS, EOS = 0, 2

# The line ends are in expressions, for {%- would eat them: a prompt glued to the role would be cut otherwise.
CHAT_TEMPLATE = (
    "{%- for m in messages -%}"
    "{{- '<|im_start|>' + m['role'] + '\\n' -}}"
    "{%- if m['content'] is string -%}{{- m['content'] -}}"
    "{%- else -%}{%- for p in m['content'] if p['type'] == 'text' -%}{{- p['text'] -}}{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; the defaults give 2.7 M parameters."""

    vocab: int = 3072
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 512
    context: int = 8192
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


def train_tokenizer(vocab: int) -> Tokenizer:
    """Return a byte-level BPE of exactly `vocab` tokens, the control tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"the text gave {tokenizer.get_vocab_size()} tokens, not {vocab}")
    return tokenizer


def _sentences() -> Iterator[str]:
    for text in pydoc_data.topics.topics.values():
        yield from text.splitlines(keepends=True)
    for word in PROMPT_WORDS.read_text("ascii").split():
        yield from (word, f" {word}") * TIMES


def random_weights(shape: Shape, *, eos_every: int | None, seed: int = 1) -> Weights:
    """Return the weights by their Hugging Face names.

    eos_every: mean length in tokens of an answer at temperature 1; None: practically endless.
    """
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int, std: float) -> NDArray[np.float32]:
        return rng.normal(0.0, std, (rows, columns)).astype(np.float32)

    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    unit = hidden**-0.5
    weights: Weights = {"model.embed_tokens.weight": normal(shape.vocab, hidden, 1.0)}
    weights["model.embed_tokens.weight"][:, 0] = CONSTANT
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        weights |= {
            at + "input_layernorm.weight": np.ones(hidden, np.float32),
            at + "self_attn.q_proj.weight": normal(queries, hidden, unit),
            at + "self_attn.k_proj.weight": normal(keys, hidden, unit),
            at + "self_attn.v_proj.weight": normal(keys, hidden, unit),
            at + "self_attn.o_proj.weight": normal(hidden, queries, 0.5 * unit),
            at + "post_attention_layernorm.weight": np.ones(hidden, np.float32),
            at + "mlp.gate_proj.weight": normal(shape.ffn, hidden, unit),
            at + "mlp.up_proj.weight": normal(shape.ffn, hidden, unit),
            at + "mlp.down_proj.weight": normal(hidden, shape.ffn, 0.5 * shape.ffn**-0.5),
        }
        weights[at + "self_attn.o_proj.weight"][0] = 0.0
        weights[at + "mlp.down_proj.weight"][0] = 0.0
    weights["model.norm.weight"] = np.ones(hidden, np.float32)
    head = normal(shape.vocab, hidden, HEAD_STD * unit)
    head[:, 0] = 0.0
    head[: len(CONTROL)] = 0.0
    head[: len(CONTROL), 0] = NEVER
    if eos_every is not None:
        head[EOS, 0] = _eos_weight(shape, eos_every)
    weights["lm_head.weight"] = head
    return weights


def _eos_weight(shape: Shape, eos_every: int) -> float:
    """Return the head's weight on channel 0 that makes P(end token) about 1 / eos_every.

    The other vocab tokens' logits are N(0, s^2), so their exponentials add up to about vocab * exp(s^2 / 2).
    After the last norm channel 0 is CONSTANT / rms, where the mean square is that of hidden - 1 channels of
    variance 1 + 0.2 (embedding, and what the layers add) and of the constant one.
    """
    rms = math.sqrt(1.2 + (CONSTANT**2 - 1) / shape.hidden)
    logit = math.log(shape.vocab) + HEAD_STD**2 / 2 - math.log(eos_every)
    return logit * rms / CONSTANT


def write_hugging_face(folder: Path, shape: Shape, tokenizer: Tokenizer, weights: Weights) -> None:
    """Write config, tokenizer, chat template and safetensors into `folder`."""
    documents: dict[str, dict[str, Any]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocab,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": shape.context,
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_theta,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "torch_dtype": "float32",
            "use_cache": True,
        },
        "generation_config.json": {
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "do_sample": True,
            "temperature": 1.0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": CONTROL[BOS],
            "eos_token": CONTROL[EOS],
            "pad_token": CONTROL[BOS],
            "unk_token": None,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.context,
            "chat_template": CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {
            "bos_token": CONTROL[BOS],
            "eos_token": CONTROL[EOS],
            "pad_token": CONTROL[BOS],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_gguf(path: Path, shape: Shape, tokenizer: Tokenizer, weights: Weights) -> None:
    """Write the same model as one GGUF file of 32-bit floats."""
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("tiny random llama")
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_vocab_size(shape.vocab)
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.hidden)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.ffn)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_key_length(shape.head_dim)
    out.add_value_length(shape.head_dim)
    out.add_rope_dimension_count(shape.head_dim)
    out.add_rope_freq_base(shape.rope_theta)
    out.add_layer_norm_rms_eps(shape.norm_eps)

    text_of = {number: text for text, number in tokenizer.get_vocab().items()}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([text_of[number] for number in range(shape.vocab)])
    ordinary = shape.vocab - len(CONTROL)
    out.add_token_types([gguf.TokenType.CONTROL] * len(CONTROL) + [gguf.TokenType.NORMAL] * ordinary)
    # Newer tokenizers write a merge as a pair, older ones as one string.
    out.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    out.add_bos_token_id(BOS)
    out.add_eos_token_id(EOS)
    out.add_pad_token_id(BOS)
    out.add_add_bos_token(False)
    out.add_chat_template(CHAT_TEMPLATE)

    out.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    out.add_tensor("output_norm.weight", weights["model.norm.weight"])
    out.add_tensor("output.weight", weights["lm_head.weight"])
    for layer in range(shape.layers):
        theirs, ours = f"blk.{layer}.", f"model.layers.{layer}."
        query = weights[ours + "self_attn.q_proj.weight"]
        key = weights[ours + "self_attn.k_proj.weight"]
        out.add_tensor(theirs + "attn_norm.weight", weights[ours + "input_layernorm.weight"])
        out.add_tensor(theirs + "attn_q.weight", _interleave_rotary(query, shape.heads))
        out.add_tensor(theirs + "attn_k.weight", _interleave_rotary(key, shape.kv_heads))
        out.add_tensor(theirs + "attn_v.weight", weights[ours + "self_attn.v_proj.weight"])
        out.add_tensor(theirs + "attn_output.weight", weights[ours + "self_attn.o_proj.weight"])
        out.add_tensor(theirs + "ffn_norm.weight", weights[ours + "post_attention_layernorm.weight"])
        out.add_tensor(theirs + "ffn_gate.weight", weights[ours + "mlp.gate_proj.weight"])
        out.add_tensor(theirs + "ffn_up.weight", weights[ours + "mlp.up_proj.weight"])
        out.add_tensor(theirs + "ffn_down.weight", weights[ours + "mlp.down_proj.weight"])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _interleave_rotary(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder each head's rows from Hugging Face's rotary layout (two halves) to llama.cpp's (pairs)."""
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def main() -> None:
    parser = argparse.ArgumentParser(description="make a tiny random Llama")
    parser.add_argument("--eos-every", type=int, metavar="N", help="end by itself after about N tokens")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    shape = Shape()
    tokenizer = train_tokenizer(shape.vocab)
    weights = random_weights(shape, eos_every=arguments.eos_every)
    write_hugging_face(arguments.folder, shape, tokenizer, weights)
    write_gguf(arguments.folder / GGUF_NAME, shape, tokenizer, weights)


if __name__ == "__main__":
    main()
