"""Exported folders: whole, in Hugging Face's form, with tokenizer and licence."""

import errno
import json

import numpy as np
import pytest

from smallpress.lowbit.bfloat16 import bf16_to_fp32, fp32_to_bf16
from smallpress.run.errors import UserError
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.safetensors import open_safetensors


def test_an_exported_folder_opens_as_the_same_model(hf_folder, tmp_path):
    files = open_model(hf_folder())
    folder = save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files)
    again = open_model(folder)
    assert again.config == files.config
    assert all(np.array_equal(again.read(name), array) for name, array in files.tensors())
    text = "abc h"
    assert again.tokenizer().encode(text) == files.tokenizer().encode(text)
    assert again.tokenizer().chat_template == files.tokenizer().chat_template


def test_a_trained_modules_parameters_are_what_is_written(hf_folder, tmp_path):
    folder = hf_folder()
    model = load_transformer(folder)
    model.norm.weight.data.fill_(3.0)
    save_hf_folder(tmp_path / "out", dict(model.named_parameters()), open_model(folder))
    assert (open_model(tmp_path / "out").read("norm.weight") == 3.0).all()


def test_bfloat16_is_the_nearest(hf_folder, tmp_path):
    files = open_model(hf_folder())
    save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files, dtype="bfloat16")
    stored = open_safetensors(tmp_path / "out/model.safetensors")
    assert {info.dtype for info in stored.tensors.values()} == {"BF16"} and stored.metadata == {"format": "pt"}
    array = files.read("embed.weight")
    assert np.array_equal(stored.read("model.embed_tokens.weight"), bf16_to_fp32(fp32_to_bf16(array)))
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert settings["dtype"] == settings["torch_dtype"] == "bfloat16"


def test_the_settings_are_spelt_for_old_and_new_readers(hf_folder, tmp_path):
    files = open_model(hf_folder(rope_theta=5e5))
    save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files)
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert settings["architectures"] == ["LlamaForCausalLM"] and settings["model_type"] == "llama"
    assert settings["rope_theta"] == settings["rope_parameters"]["rope_theta"] == 5e5
    assert (settings["bos_token_id"], settings["eos_token_id"], settings["pad_token_id"]) == (1, 2, 2)


def test_recommended_sampling_is_handed_on(hf_folder, tmp_path):
    folder = hf_folder()
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6}')
    files = open_model(folder)
    save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files)
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert generation == ids | {"do_sample": True, "temperature": 0.6}


def test_the_card_names_licence_and_base_and_survives_odd_titles(hf_folder, tmp_path):
    folder = hf_folder()
    (folder / "source.json").write_text('{"licence": "apache-2.0", "origin": "org/base"}')
    (folder / "LICENSE").write_text("The text of it.")
    files = open_model(folder)
    card = {"title": "Tiny", "summary": "It counts.", "datasets": ['a"b: c\n- d'], "body": "## How\n\nSlowly."}
    save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files, card=card)
    text = (tmp_path / "out/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    fields = {line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1]) for line in head.splitlines()}
    assert fields["license"] == "apache-2.0" and fields["base_model"] == "org/base"
    assert fields["library_name"] == "transformers" and fields["pipeline_tag"] == "text-generation"
    assert fields["datasets"] == ['a"b: c\n- d']
    assert "# Tiny" in body and "It counts." in body and "org/base" in body and "Slowly." in body
    assert (tmp_path / "out/LICENSE").read_text() == "The text of it."
    assert (open_model(tmp_path / "out").licence, open_model(tmp_path / "out").origin) == ("apache-2.0", "org/base")


def test_an_origin_that_is_no_hub_name_stays_out_of_the_head(hf_folder, tmp_path):
    folder = hf_folder()
    (folder / "source.json").write_text(json.dumps({"licence": "mit", "origin": "../x](javascript:1)"}))
    files = open_model(folder)
    save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files)
    assert "base_model" not in (tmp_path / "out/README.md").read_text()


def test_a_failed_export_leaves_nothing(hf_folder, tmp_path):
    class Full(WeightsOnDemand):
        def __getitem__(self, name):
            raise OSError(errno.ENOSPC, "No space left on device")

    files = open_model(hf_folder())
    with pytest.raises(UserError, match="no space left"):
        save_hf_folder(tmp_path / "out", Full(files), files)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_an_existing_folder_is_not_overwritten(hf_folder, tmp_path):
    files = open_model(hf_folder())
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files)


def test_an_unknown_dtype_is_refused(hf_folder, tmp_path):
    files = open_model(hf_folder())
    with pytest.raises(UserError, match="'int8'"):
        save_hf_folder(tmp_path / "out", WeightsOnDemand(files), files, dtype="int8")
