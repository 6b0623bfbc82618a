"""Small model files, made byte by byte so that each can also be made wrong."""

import json
import struct
from dataclasses import dataclass, field

import numpy as np
import pytest

STRING, ARRAY, U32, F32, BOOL = 8, 9, 4, 6, 7


def gguf_text(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(value):
    """(type, payload) of a Python value."""
    if isinstance(value, bool):
        return BOOL, struct.pack("<B", value)
    if isinstance(value, int):
        return U32, struct.pack("<I", value)
    if isinstance(value, float):
        return F32, struct.pack("<f", value)
    if isinstance(value, str):
        return STRING, gguf_text(value)
    kinds, payloads = zip(*map(gguf_value, value), strict=True)
    return ARRAY, struct.pack("<IQ", kinds[0], len(value)) + b"".join(payloads)


@dataclass
class GGUFBytes:
    """A GGUF file in parts; `pairs` are (key, type, payload), `tensors` (name, dims innermost first, type, data)."""

    pairs: list = field(default_factory=list)
    tensors: list = field(default_factory=list)
    version: int = 3
    alignment: int = 32
    n_tensors: int | None = None
    n_pairs: int | None = None
    offsets: dict = field(default_factory=dict)
    magic: bytes = b"GGUF"

    def put(self, **metadata):
        for key, value in metadata.items():
            self.pairs.append((key.replace("__", "."), *gguf_value(value)))
        return self

    def tensor(self, name, array, kind=0, data=None):
        dims = array.shape[::-1]
        self.tensors.append((name, dims, kind, array.astype("<f4").tobytes() if data is None else data))
        return self

    def build(self):
        head = self.magic + struct.pack("<I", self.version)
        head += struct.pack("<Q", len(self.tensors) if self.n_tensors is None else self.n_tensors)
        head += struct.pack("<Q", len(self.pairs) if self.n_pairs is None else self.n_pairs)
        for key, kind, payload in self.pairs:
            head += gguf_text(key) + struct.pack("<I", kind) + payload
        body = b""
        for name, dims, kind, data in self.tensors:
            offset = self.offsets.get(name, len(body))
            head += gguf_text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            head += struct.pack("<IQ", kind, offset)
            body += data + bytes(-len(data) % self.alignment)
        return head + bytes(-len(head) % self.alignment) + body


@pytest.fixture
def gguf_bytes():
    return GGUFBytes


@pytest.fixture
def safetensors_bytes():
    """Header (an object, or the text of one) and data -> the bytes of a file."""

    def build(header, data=b""):
        text = header if isinstance(header, str | bytes) else json.dumps(header)
        text = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(text)) + text + data

    return build


def tiny_hf_settings(**changes):
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 11,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 12,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {key: value for key, value in (settings | changes).items() if value is not ...}


@pytest.fixture
def hf_settings():
    """The settings of a tiny llama's config.json, with changes; `...` removes a key."""
    return tiny_hf_settings


@pytest.fixture
def hf_folder(tmp_path):
    """A tiny llama as a Hugging Face folder with random weights and a tokenizer of 11 tokens."""
    from smallpress.model.shapes import tensor_shapes
    from smallpress.weights.names import HF, foreign_names
    from smallpress.weights.names_hf import config_from_hf
    from smallpress.weights.safetensors_writer import write_safetensors

    def build(name="tiny", **changes):
        folder = tmp_path / name
        folder.mkdir()
        settings = tiny_hf_settings(**changes)
        config = config_from_hf(settings, (), "here")
        rng = np.random.default_rng(0)
        names, shapes = foreign_names(config, HF), tensor_shapes(config)
        tensors = {names[ours]: rng.normal(size=shape).astype(np.float32) for ours, shape in shapes.items()}
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(settings))
        write_tokenizer(folder)
        return folder

    return build


def write_tokenizer(folder):
    """Eight letters, and the control tokens <s>, </s> and <pad>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = dict(zip("abcdefgh", range(3, 11), strict=True))
    library = Tokenizer(models.BPE(vocab={"<pad>": 0, "<s>": 1, "</s>": 2, **letters}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<pad>", "<s>", "</s>"])
    library.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def tiny_gguf(gguf_bytes):
    """A tiny llama as GGUFBytes, untied, its tensors random; `without` leaves tensors out, `put` adds metadata."""

    def build(without=(), put=None, architecture="llama", bias=False):
        pairs = {
            "general.architecture": architecture,
            "block_count": 1,
            "context_length": 64,
            "embedding_length": 8,
            "feed_forward_length": 12,
            "attention.head_count": 2,
            "attention.head_count_kv": 1,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.freq_base": 10000.0,
        } | (put or {})
        file = gguf_bytes()
        for key, value in pairs.items():
            name = key if key.startswith(("general.", "split.", "tokenizer.")) else f"{architecture}.{key}"
            if value is not ...:
                file.pairs.append((name, *gguf_value(value)))
        shapes = {"token_embd": (11, 8), "output_norm": (8,), "output": (11, 8), "blk.0.attn_norm": (8,)}
        shapes |= {"blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8)}
        shapes |= {
            "blk.0.ffn_norm": (8,),
            "blk.0.ffn_gate": (12, 8),
            "blk.0.ffn_up": (12, 8),
            "blk.0.ffn_down": (8, 12),
        }
        named = {f"{name}.weight": shape for name, shape in shapes.items()}
        if bias:
            named |= {"blk.0.attn_q.bias": (8,), "blk.0.attn_k.bias": (4,), "blk.0.attn_v.bias": (4,)}
        rng = np.random.default_rng(0)
        for name, shape in named.items():
            if name not in without:
                file.tensor(name, rng.normal(size=shape))
        return file

    return build
