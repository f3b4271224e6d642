"""Writes the files that the logits tests compare with. Both kinds of output are committed; run again only to change them.

usage: make_expected.py tiny OUT           two random two-layer models, one per RoPE pair style, with every logit of a prompt
       make_expected.py model FOLDER OUT   expected logits of the model that examples/llama/prepare makes
"""

import json
import sys
from pathlib import Path

import numpy as np
from reference import Llama
from safetensors.numpy import save_file
from tokenizers import Tokenizer

TINY = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
}
TINY_TOKENS = 40

PROMPT = """It was a bright morning in early spring, and the harbour was already full of boats. The fishermen had been out since
before dawn, and now they stood on the quay in small groups, mending nets, drinking coffee and talking about the weather.
An old man with a white beard sat a little apart from the others. He had been a sailor for forty years, and he knew every
rock and current between the lighthouse and the open sea. When the children asked him for a story, he laughed, put down
his pipe and began: "Many years ago, when I was no older than you are now, a ship came into this harbour that nobody had
ever seen before. Her sails were red, and there was no one at the wheel."
"""
MODEL_ROWS = 8  # positions whose logits are kept
MODEL_TOP = 32  # largest logits of each
MODEL_SPREAD = 224  # others, spread over the vocabulary


def write_tiny(folder: Path, config: dict, seed: int) -> None:
    random = np.random.default_rng(seed)
    width, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def matrix(outputs: int, inputs: int) -> np.ndarray:
        # Larger than a trained model's, so that attention is not uniform and the layers matter.
        return (random.standard_normal((outputs, inputs)) * 1.5 / np.sqrt(inputs)).astype(np.float16)

    def norm() -> np.ndarray:
        return (1 + 0.2 * random.standard_normal(width)).astype(np.float16)

    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], width), "model.norm.weight": norm()}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        tensors |= {
            f"{layer}.input_layernorm.weight": norm(),
            f"{layer}.post_attention_layernorm.weight": norm(),
            f"{layer}.self_attn.q_proj.weight": matrix(heads * dim, width),
            f"{layer}.self_attn.k_proj.weight": matrix(kv_heads * dim, width),
            f"{layer}.self_attn.v_proj.weight": matrix(kv_heads * dim, width),
            f"{layer}.self_attn.o_proj.weight": matrix(width, heads * dim),
            f"{layer}.mlp.gate_proj.weight": matrix(inner, width),
            f"{layer}.mlp.up_proj.weight": matrix(inner, width),
            f"{layer}.mlp.down_proj.weight": matrix(width, inner),
        }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(config["vocab_size"], width)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokens = random.integers(0, config["vocab_size"], TINY_TOKENS)
    rows = np.arange(TINY_TOKENS)
    everything = np.tile(np.arange(config["vocab_size"]), (TINY_TOKENS, 1))
    write_expected(folder, tokens, rows, lambda logits: everything, folder / "expected.safetensors")


def write_expected(folder: Path, tokens: np.ndarray, rows: np.ndarray, choose, out: Path) -> None:
    logits = Llama(folder, np.float64).logits(tokens)[rows]
    error = np.abs(Llama(folder, np.float32).logits(tokens)[rows] - logits).max()
    indices = choose(logits)
    save_file({
        "tokens": tokens.astype(np.int32),
        "rows": rows.astype(np.int32),
        "indices": indices.astype(np.int32),
        "logits": np.take_along_axis(logits, indices, axis=1),
        "f32_error": np.array([error]),
    }, out)
    print(f"{out}: {indices.size} logits of {len(tokens)} tokens; float32 is off by {error:.2e}")


def top_and_spread(logits: np.ndarray) -> np.ndarray:
    top = np.argsort(-logits, axis=1)[:, :MODEL_TOP]
    spread = np.linspace(0, logits.shape[1] - 1, MODEL_SPREAD).astype(int)
    return np.concatenate([top, np.tile(spread, (len(logits), 1))], axis=1)


def main() -> None:
    if sys.argv[1] == "tiny":
        out = Path(sys.argv[2])
        write_tiny(out / "interleaved", TINY | {"rope_style": "interleaved", "tie_word_embeddings": True}, 1)
        write_tiny(out / "half_split", TINY | {"rope_style": "half_split", "tie_word_embeddings": False}, 2)
    else:
        folder, out = Path(sys.argv[2]), Path(sys.argv[3])
        tokens = np.array(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT.replace("\n", " ")).ids)
        rows = np.linspace(0, len(tokens) - 1, MODEL_ROWS).astype(int)
        write_expected(folder, tokens, rows, top_and_spread, out)


if __name__ == "__main__":
    main()
