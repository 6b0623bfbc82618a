"""Models as GGUF files: the same weights, tokenizer, licence, in the formats asked for."""

import json

import numpy as np
import pytest

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.run.errors import UserError
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.gguf import open_gguf
from smallpress.weights.gguf_export import gguf_contents, kept_precision
from smallpress.weights.gguf_writer import write_gguf
from smallpress.weights.load import open_model
from smallpress.weights.names import config_from_gguf, config_to_gguf, tensor_shapes
from smallpress.weights.names_gguf import permute, unpermute
from smallpress.weights.quantization import TARGETS, tensor_formats


def export(files, path, target="f32", tensors=None):
    write_gguf(path, *gguf_contents(WeightsOnDemand(files) if tensors is None else tensors, files, target))
    return open_model(path)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"model_type": "qwen2"}], ids=str)
def test_a_folder_becomes_a_gguf_and_a_folder_again(hf_folder, tmp_path, changes):
    files = open_model(hf_folder(**changes))
    made = export(files, tmp_path / "a.gguf")
    assert made.config == files.config
    again = open_model(save_hf_folder(tmp_path / "again", WeightsOnDemand(made), made))
    for name, array in files.tensors():
        assert np.array_equal(made.read(name), array) and np.array_equal(again.read(name), array), name
    for opened in (made, again):
        tokenizer, source = opened.tokenizer(), files.tokenizer()
        assert tokenizer.encode("abc h<s>", special=True) == source.encode("abc h<s>", special=True)
        assert tokenizer.chat_template == source.chat_template
        assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos) == (1, {2}, False)


def test_only_llamas_queries_and_keys_lie_in_another_order(hf_folder, tmp_path):
    for family in ("llama", "qwen2"):
        files = open_model(hf_folder(family, model_type=family))
        export(files, tmp_path / f"{family}.gguf")
        raw = open_gguf(tmp_path / f"{family}.gguf")
        assert raw.metadata["general.architecture"] == family
        q, k = files.read("layers.1.attn.q.weight"), files.read("layers.1.attn.k.weight")
        if family == "llama":  # head_dim is 2: rows 0 and 1 of a head are (0, 0 + D/2) already
            q, k = permute(q, 4), permute(k, 2)
        assert np.array_equal(raw.read("blk.1.attn_q.weight"), q)
        assert np.array_equal(raw.read("blk.1.attn_k.weight"), k)
        assert np.array_equal(raw.read("blk.1.attn_v.weight"), files.read("layers.1.attn.v.weight"))


def test_the_order_is_undone_for_weights_and_biases():
    for shape in ((24, 3), (24,)):
        rows = np.arange(np.prod(shape)).reshape(shape)
        assert np.array_equal(unpermute(permute(rows, 3), 3), rows)
    assert permute(np.arange(8), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("biases", ["", "qkv", "qkvo", "q"])
def test_the_settings_come_back(biases):
    head_dim = 2 if biases == "qkv" else 6  # llama.cpp's heads of qwen2 share the width
    attention = GQA(n_heads=4, n_kv_heads=2, head_dim=head_dim, **{f"{letter}_bias": True for letter in biases})
    config = ModelConfig(
        family="qwen2" if biases == "qkv" else "llama",
        vocab_size=11,
        dim=8,
        n_layers=2,
        attention=attention,
        ffn=Dense(inter_dim=12),
        norm_eps=1e-5,
        rope_theta=123456.0,
        max_seq_len=64,
        tied_head=True,
    )
    from smallpress.weights.names import GGUF, foreign_names

    names, shapes = foreign_names(config, GGUF), tensor_shapes(config)
    found = config_from_gguf(config_to_gguf(config), {names[ours]: shape for ours, shape in shapes.items()}, "here")
    assert found == config


def test_licence_and_origin_go_along_and_come_back_from_the_file_alone(hf_folder, tmp_path):
    folder = hf_folder()
    (folder / "source.json").write_text('{"licence": "apache-2.0", "origin": "org/base-1B"}')
    made = export(open_model(folder), tmp_path / "a.gguf")
    assert (made.licence, made.origin) == ("apache-2.0", "org/base-1B")
    metadata = open_gguf(tmp_path / "a.gguf").metadata
    assert metadata["general.name"] == "tiny" and metadata["general.quantization_version"] == 2
    assert metadata["general.base_model.0.organization"] == "org"


def test_recommended_sampling_goes_along(hf_folder, tmp_path):
    folder = hf_folder()
    sampling = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps(sampling | {"do_sample": True}))
    made = export(open_model(folder), tmp_path / "a.gguf")
    assert {key: made.generation[key] for key in sampling} == sampling


def test_a_ggufs_own_words_are_carried_over(tiny_gguf, tmp_path):
    put = {"general.name": "Tiny", "general.languages": ["en"], "general.alignment": 64, "general.file_type": 2}
    put |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.odd": [3, 1], "split.count": 1}
    source = tiny_gguf(put=put)
    source.alignment = 64
    (tmp_path / "a.gguf").write_bytes(source.build())
    files = open_model(tmp_path / "a.gguf")
    made = export(files, tmp_path / "b.gguf", "f16")
    metadata = open_gguf(tmp_path / "b.gguf").metadata
    assert metadata["general.name"] == "Tiny" and metadata["general.languages"] == ["en"]
    assert metadata["tokenizer.ggml.odd"] == [3, 1] and "split.count" not in metadata
    assert "general.alignment" not in metadata and metadata["general.file_type"] == 1
    assert made.config == files.config
    assert np.array_equal(made.read("embed.weight"), files.read("embed.weight").astype(np.float16))


def test_other_weights_than_the_files_may_be_written(hf_folder, tmp_path):
    files = open_model(hf_folder())
    trained = {name: array + np.float32(1) for name, array in files.tensors()}
    made = export(files, tmp_path / "a.gguf", tensors=trained)
    assert np.array_equal(made.read("layers.0.attn.q.weight"), trained["layers.0.attn.q.weight"])


def test_a_tensor_that_is_not_finite_is_named_and_nothing_is_left(hf_folder, tmp_path):
    files = open_model(hf_folder())
    broken = dict(files.tensors())
    broken["layers.1.mlp.up.weight"][0, 0] = np.nan
    with pytest.raises(UserError, match=r"tensor blk\.1\.ffn_up\.weight holds nan"):
        export(files, tmp_path / "a.gguf", tensors=broken)
    assert [item.name for item in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(("stored", "kept"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_the_precision_of_a_folder_is_kept(hf_folder, tmp_path, stored, kept):
    files = open_model(hf_folder())
    folder = save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files, dtype=stored)
    assert kept_precision(open_model(folder)) == kept


def test_the_precision_of_a_gguf_is_kept_unless_it_is_low(hf_folder, tmp_path):
    files = open_model(hf_folder(hidden_size=32))
    kept = [kept_precision(export(files, tmp_path / f"{target}.gguf", target)) for target in TARGETS]
    assert dict(zip(TARGETS, kept, strict=True)) == dict.fromkeys(TARGETS, "f16") | {"f32": "f32", "bf16": "bf16"}


def formats(target, dim=256, inter_dim=512, n_layers=8, tied=False):
    attention = GQA(n_heads=4, n_kv_heads=4, head_dim=64, q_bias=True, k_bias=True, v_bias=True)
    sizes = {"vocab_size": 11, "dim": dim, "n_layers": n_layers, "max_seq_len": 8, "norm_eps": 1e-5, "rope_theta": 1e4}
    config = ModelConfig(family="qwen2", attention=attention, ffn=Dense(inter_dim=inter_dim), tied_head=tied, **sizes)
    return {name: block_format.name for name, block_format in tensor_formats(config, target).items()}


def test_norms_and_biases_stay_fp32():
    for target in TARGETS:
        flat = {name: kind for name, kind in formats(target).items() if "norm" in name or name.endswith(".bias")}
        assert len(flat) == 8 * 5 + 1 and set(flat.values()) == {"F32"}


def test_what_gives_the_logits_is_kept_better():
    assert (formats("q4_0")["embed.weight"], formats("q4_0")["head.weight"]) == ("Q4_0", "Q6_K")
    assert formats("q4_0", tied=True)["embed.weight"] == "Q6_K"
    assert formats("q4_0", dim=288, tied=True)["embed.weight"] == "Q8_0"
    assert formats("q8_0", tied=True)["embed.weight"] == "Q8_0"


def test_half_the_layers_of_the_4_bit_mixture_keep_values_and_down_projections_in_6():
    found = formats("q4_k")
    better = [layer for layer in range(8) if found[f"layers.{layer}.attn.v.weight"] == "Q6_K"]
    assert better == [0, 3, 6, 7]  # the first eighth, every third of what follows, the last eighth
    assert [found[f"layers.{layer}.mlp.down.weight"] == "Q6_K" for layer in range(8)] == [n in better for n in range(8)]
    assert {found[f"layers.{layer}.attn.q.weight"] for layer in range(8)} == {"Q4_K"}


def test_rows_that_blocks_do_not_fill_fall_back():
    found = formats("q4_k", dim=96, inter_dim=100)
    assert found["layers.1.attn.q.weight"] == "Q5_0" and found["layers.1.attn.o.weight"] == "Q4_K"
    assert found["layers.1.mlp.down.weight"] == "F16"
    assert formats("q6_k", dim=96)["layers.1.attn.q.weight"] == "Q8_0"


def test_a_tokenizer_that_has_more_ids_than_the_model_is_refused(hf_folder, tmp_path):
    folder = hf_folder(vocab_size=9)
    with pytest.raises(UserError, match="the id 10, the model only 9 embeddings"):
        gguf_contents(WeightsOnDemand(open_model(folder)), open_model(folder), "f32")


def test_embeddings_without_a_token_get_unused_ones(hf_folder, tmp_path):
    made = export(open_model(hf_folder(vocab_size=13)), tmp_path / "a.gguf")
    metadata = open_gguf(tmp_path / "a.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"][10:] == ["h", "[PAD11]", "[PAD12]"]
    assert metadata["tokenizer.ggml.token_type"][10:] == [1, 5, 5]
    assert made.tokenizer().encode("[PAD11]") == made.tokenizer().encode("[PAD11]", special=True)
    assert json.dumps(metadata["tokenizer.chat_template"])
