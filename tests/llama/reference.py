"""The Llama forward pass in plain NumPy, independent of the library and of the C++ runner: what their logits are checked
against. In float64 it is the reference; in float32 it shows how much error that precision costs, from which the
tolerance of the check is derived.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open


class Llama:
    def __init__(self, folder: Path, dtype=np.float64):
        self.dtype = dtype
        self.config = json.loads((folder / "config.json").read_text())
        self.file = safe_open(folder / "model.safetensors", "np")

    def weight(self, name: str) -> np.ndarray:
        return self.file.get_tensor(name).astype(self.dtype)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weight(name).T

    def rms_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.dtype(self.config["rms_norm_eps"])) * self.weight(name)

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """x: [tokens][heads][head_dim], token t at position t."""
        tokens, _, dim = x.shape
        frequency = float(self.config["rope_theta"]) ** (-np.arange(0, dim, 2) / dim)
        angle = (np.arange(tokens)[:, None] * frequency)[:, None, :]
        cos, sin = np.cos(angle).astype(self.dtype), np.sin(angle).astype(self.dtype)
        y = np.empty_like(x)
        if self.config.get("rope_style", "half_split") == "interleaved":
            first, second = np.s_[..., 0::2], np.s_[..., 1::2]
        else:
            first, second = np.s_[..., : dim // 2], np.s_[..., dim // 2 :]
        y[first] = x[first] * cos - x[second] * sin
        y[second] = x[first] * sin + x[second] * cos
        return y

    def attention(self, x: np.ndarray, layer: str) -> np.ndarray:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        tokens = len(x)
        q = self.rotate(self.linear(x, f"{layer}.q_proj.weight").reshape(tokens, heads, -1))
        k = self.rotate(self.linear(x, f"{layer}.k_proj.weight").reshape(tokens, kv_heads, -1))
        v = self.linear(x, f"{layer}.v_proj.weight").reshape(tokens, kv_heads, -1)
        out = np.empty_like(q)
        future = np.triu(np.ones((tokens, tokens), bool), 1)
        for h in range(heads):
            group = h // (heads // kv_heads)
            score = q[:, h] @ k[:, group].T / np.sqrt(self.dtype(q.shape[-1]))
            score[future] = -np.inf
            weight = np.exp(score - score.max(axis=-1, keepdims=True))
            out[:, h] = weight / weight.sum(axis=-1, keepdims=True) @ v[:, group]
        return self.linear(out.reshape(tokens, -1), f"{layer}.o_proj.weight")

    def mlp(self, x: np.ndarray, layer: str) -> np.ndarray:
        gate = self.linear(x, f"{layer}.gate_proj.weight")
        return self.linear(gate / (1 + np.exp(-gate)) * self.linear(x, f"{layer}.up_proj.weight"), f"{layer}.down_proj.weight")

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """[tokens][vocab_size]"""
        x = self.weight("model.embed_tokens.weight")[tokens]
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            x = x + self.attention(self.rms_norm(x, f"{layer}.input_layernorm.weight"), f"{layer}.self_attn")
            x = x + self.mlp(self.rms_norm(x, f"{layer}.post_attention_layernorm.weight"), f"{layer}.mlp")
        x = self.rms_norm(x, "model.norm.weight")
        return self.linear(x, "model.embed_tokens.weight" if self.config["tie_word_embeddings"] else "lm_head.weight")
