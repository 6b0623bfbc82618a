"""Opening models: folders, shards, GGUF files, and what stands beside them."""

import json
import shutil

import numpy as np
import pytest
import torch

from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import write_safetensors


def split_in_two(folder):
    """Replace model.safetensors by two shards and an index."""
    whole = open_safetensors(folder / "model.safetensors")
    names = sorted(whole.tensors)
    places = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        write_safetensors(folder / shard, {n: whole.stored(n).copy() for n, place in places.items() if place == shard})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_a_folder_loads_into_the_transformer(hf_folder):
    folder = hf_folder(tie_word_embeddings=False)
    model = load_transformer(folder)
    stored = open_safetensors(folder / "model.safetensors")
    assert np.array_equal(model.head.weight.detach(), stored.read("lm_head.weight"))
    assert np.array_equal(model.layers[1].attn.o.weight.detach(), stored.read("model.layers.1.self_attn.o_proj.weight"))
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in model.parameters())


def test_the_dtype_is_the_callers(hf_folder):
    model = load_transformer(hf_folder(), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_training_the_loaded_model_leaves_the_file_alone(hf_folder):
    folder = hf_folder()
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in load_transformer(folder).parameters():
            parameter.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_shards_are_one_model(hf_folder):
    folder = hf_folder()
    whole = dict(open_model(folder).tensors())
    split_in_two(folder)
    parts = dict(open_model(folder).tensors())
    assert list(parts) == list(whole) and all(np.array_equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda places: places | {"model.norm.weight": "../../etc/passwd"}, "no shard's name"),
        (lambda places: places | {"model.norm.weight": "/etc/x.safetensors"}, "no shard's name"),
        (lambda places: places | {"model.norm.weight": ["a"]}, "no shard's name"),
        (lambda places: places | {"model.norm.weight": "absent.safetensors"}, "no such file"),
        (lambda places: places | {"model.more.weight": "model-00001-of-00002.safetensors"}, "'model.more.weight'"),
        (lambda places: {k: v for k, v in places.items() if k != "model.norm.weight"}, "not listed"),
        (lambda places: {}, "no weight_map"),
        (lambda places: [1], "no weight_map"),
    ],
)
def test_an_index_at_odds_with_its_files_is_refused(hf_folder, change, words):
    folder = hf_folder()
    places = split_in_two(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": change(places)}))
    with pytest.raises(UserError) as caught:
        open_model(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expecting value"),
        (b"{", "byte 1"),
        (b"[1]", "a list, not an object"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a": NaN}', "not plain JSON"),
        (b'{"a": ' + b"[" * 10**5, "not plain JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not plain JSON"),
    ],
)
def test_a_config_that_is_no_json_is_one_clear_error(hf_folder, text, words):
    folder = hf_folder()
    (folder / "config.json").write_bytes(text)
    with pytest.raises(UserError) as caught:
        open_model(folder)
    assert words in str(caught.value) and "config.json" in str(caught.value)


def test_config_and_tensors_at_odds_are_named(hf_folder):
    folder = hf_folder()
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"missing: model\.layers\.2\..* and 1 more"):
        open_model(folder)


def test_a_gguf_loads_with_its_q_and_k_rows_put_back(tmp_path, tiny_gguf):
    file = tiny_gguf(bias=True)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(file.build())
    data = {name: np.frombuffer(raw, "<f4").reshape(dims[::-1]) for name, dims, _, raw in file.tensors}
    model = load_transformer(path)
    attention = model.layers[0].attn
    rows = [0, 2, 1, 3]  # one head of 4: pairs (0, 1), (2, 3) become halves (0, 2 | 1, 3)
    assert np.array_equal(attention.k.weight.detach(), data["blk.0.attn_k.weight"][rows])
    assert np.array_equal(attention.k.bias.detach(), data["blk.0.attn_k.bias"][rows])
    assert np.array_equal(attention.q.bias.detach(), data["blk.0.attn_q.bias"][[*rows, 4, 6, 5, 7]])
    assert np.array_equal(attention.v.weight.detach(), data["blk.0.attn_v.weight"])
    assert np.array_equal(model.head.weight.detach(), data["output.weight"])


def test_a_qwen2_gguf_keeps_its_rows(tmp_path, tiny_gguf):
    file = tiny_gguf(architecture="qwen2", bias=True)
    (tmp_path / "tiny.gguf").write_bytes(file.build())
    data = {name: np.frombuffer(raw, "<f4").reshape(dims[::-1]) for name, dims, _, raw in file.tensors}
    tensors = dict(open_model(tmp_path / "tiny.gguf").tensors())
    assert np.array_equal(tensors["layers.0.attn.q.weight"], data["blk.0.attn_q.weight"])


def test_a_gguf_without_one_of_its_tensors_is_refused(tmp_path, tiny_gguf):
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf(without=["blk.0.ffn_up.weight"]).build())
    with pytest.raises(UserError, match=r"missing: blk\.0\.ffn_up\.weight"):
        open_model(tmp_path / "tiny.gguf")


def test_a_folder_with_one_gguf_is_that_model(tmp_path, tiny_gguf):
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf().build())
    assert open_model(tmp_path).path == tmp_path / "tiny.gguf"
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "other.gguf")
    with pytest.raises(UserError, match="and 2 "):
        open_model(tmp_path)


def test_what_is_no_model_says_so(tmp_path, hf_folder):
    with pytest.raises(UserError, match="does not exist"):
        open_model(tmp_path / "absent")
    with pytest.raises(UserError, match="no config"):
        open_model(tmp_path)
    folder = hf_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="never read"):
        open_model(folder)


def test_tensors_come_in_the_order_and_shapes_of_the_model(hf_folder):
    files = open_model(hf_folder())
    assert {name: array.shape for name, array in files.tensors()} == tensor_shapes(files.config)


def test_token_ids_come_from_the_generation_config_first(hf_folder):
    folder = hf_folder()
    assert open_model(folder).generation == {"bos_token_id": 1, "eos_token_id": 2}
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3], "temperature": 0.6}')
    expected = {"bos_token_id": 1, "eos_token_id": [2, 3], "temperature": 0.6}
    assert open_model(folder).generation == expected


def test_token_ids_and_licence_of_a_gguf_come_from_its_metadata(tmp_path, tiny_gguf):
    put = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.padding_token_id": 0, "general.license": "mit"}
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf(put=put).build())
    files = open_model(tmp_path / "tiny.gguf")
    assert files.generation == {"bos_token_id": 1, "pad_token_id": 0}
    assert (files.licence, files.origin, files.licence_text) == ("mit", None, None)


def test_licence_and_origin_come_from_the_model_card(hf_folder):
    folder = hf_folder()
    assert open_model(folder).licence is None
    (folder / "README.md").write_text('---\nlicense: "apache-2.0"\nbase_model: a/b\ntags: [x]\n---\nlicense: none\n')
    (folder / "LICENSE").write_text("Do what you like.")
    files = open_model(folder)
    assert (files.licence, files.origin, files.licence_text) == ("apache-2.0", "a/b", "Do what you like.")


def test_a_note_of_the_store_goes_before_the_card(hf_folder):
    folder = hf_folder()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "source.json").write_text('{"licence": "apache-2.0", "origin": "c/d"}')
    assert (open_model(folder).licence, open_model(folder).origin) == ("apache-2.0", "c/d")


def test_stored_rows_are_the_files_own_bytes_in_our_order(tmp_path, tiny_gguf, hf_folder):
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf().build())
    for path in (tmp_path / "tiny.gguf", hf_folder()):
        files = open_model(path)
        for name in ("embed.weight", "layers.0.attn.q.weight", "layers.0.attn.k.weight", "layers.0.mlp.down.weight"):
            format, rows = files.stored(name)
            assert format == "F32"
            assert np.array_equal(np.ascontiguousarray(rows).view("<f4"), files.read(name))
