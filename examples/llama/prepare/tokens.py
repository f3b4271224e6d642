"""Texts and prompts as token files for the runner, and the vocabulary's bytes, with which it prints tokens again."""

import json
from pathlib import Path

import numpy as np
from common import Failure, replacing
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.numpy import save_file
from tokenizers import Tokenizer


def load_tokenizer(model: Path) -> Tokenizer:
    path = model / "tokenizer.json"
    if not path.exists():
        raise Failure(f"{path} does not exist; --model wants a folder with config.json, model.safetensors and tokenizer.json")
    return Tokenizer.from_file(str(path))


def write_text(tokenizer: Tokenizer, text: Path, out: Path) -> None:
    """`out`: tensor "tokens" int32 [n]."""
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the text {text} ({error}); --text wants a UTF-8 file") from None
    tokens = tokenizer.encode(content, add_special_tokens=False).ids
    if tokenizer.decode(tokens, skip_special_tokens=False) != content:
        raise Failure(f"the tokenizer does not give {text} back; --model needs a byte-level tokenizer")
    with replacing(out) as path:
        save_file({"tokens": np.array(tokens, np.int32)}, path)


def write_prompts(tokenizer: Tokenizer, model: Path, prompts: list[str], out: Path) -> None:
    """`out`: tensors "prompt.0", "prompt.1", ... int32 [n]; the metadata holds their texts under the same names."""
    settings = model / "tokenizer_config.json"
    template = json.loads(settings.read_text()).get("chat_template") if settings.exists() else None
    tensors, texts = {}, {}
    for i, prompt in enumerate(prompts):
        chat = prompt if template is None else ImmutableSandboxedEnvironment(trim_blocks=True).from_string(
            template).render(messages=[{"role": "user", "content": prompt}], add_generation_prompt=True)
        tensors[f"prompt.{i}"] = np.array(tokenizer.encode(chat, add_special_tokens=False).ids, np.int32)
        texts[f"prompt.{i}"] = prompt
    with replacing(out) as path:
        save_file(tensors, path, metadata=texts)


def write_vocabulary(tokenizer: Tokenizer, out: Path) -> None:
    """`out`: token i is bytes[offsets[i] : offsets[i+1]]."""
    to_byte = byte_alphabet()
    special = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
    pieces = []
    for i in range(tokenizer.get_vocab_size()):
        token = tokenizer.id_to_token(i) or ""
        if i in special or any(c not in to_byte for c in token):
            pieces.append(token.encode("utf-8"))
        else:
            pieces.append(bytes(to_byte[c] for c in token))
    offsets = np.cumsum([0] + [len(piece) for piece in pieces])
    with replacing(out) as path:
        save_file({"bytes": np.frombuffer(b"".join(pieces), np.uint8), "offsets": offsets.astype(np.int32)}, path)


def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character: itself where it prints, else 256, 257, ... in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
