"""Our readers and writers of GGUF and safetensors against the libraries their formats come from."""

import json

import gguf
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from smallpress.lowbit.blocks import FORMATS
from smallpress.lowbit.encode import ENCODERS
from smallpress.weights.errors import FormatError
from smallpress.weights.gguf import open_gguf
from smallpress.weights.gguf_writer import BlockTensor, write_gguf
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import LazyTensor, write_safetensors


def numpy_tensors():
    rng = np.random.default_rng(0)
    kinds = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")
    tensors = {f"t.{kind}": rng.integers(0, 100, (3, 5)).astype(kind) for kind in kinds}
    odd = {"bool": rng.random(7) > 0.5, "scalar": np.array(1.5, "f4"), "none": np.zeros((0, 4), "f4"), "é": np.ones(1)}
    return tensors | odd


def test_we_read_what_the_safetensors_library_writes(tmp_path):
    tensors = numpy_tensors()
    safetensors.numpy.save_file(tensors, tmp_path / "a", metadata={"format": "np", "note": 'é "quoted" \\ \n'})
    opened = open_safetensors(tmp_path / "a")
    assert opened.metadata == {"format": "np", "note": 'é "quoted" \\ \n'}
    assert set(opened.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert opened.stored(name).dtype == tensor.dtype and np.array_equal(opened.stored(name), tensor)


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    tensors = numpy_tensors()
    write_safetensors(tmp_path / "a", tensors, {"format": "pt"})
    theirs = safetensors.numpy.load_file(tmp_path / "a")
    for name, tensor in tensors.items():
        assert theirs[name].dtype == tensor.dtype and np.array_equal(theirs[name], tensor)
    with safetensors.safe_open(tmp_path / "a", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_bfloat16_goes_both_ways(tmp_path):
    tensor = torch.randn(4, 5).bfloat16()
    safetensors.torch.save_file({"x": tensor}, tmp_path / "a")
    opened = open_safetensors(tmp_path / "a")
    assert np.array_equal(opened.read("x"), tensor.float().numpy())
    write_safetensors(tmp_path / "b", {"x": LazyTensor("BF16", (4, 5), lambda: opened.stored("x"))})
    assert torch.equal(safetensors.torch.load_file(tmp_path / "b")["x"], tensor)


def test_what_we_write_is_laid_out_as_the_library_does(tmp_path):
    tensors = {"b": np.zeros(3, "f4"), "a": np.ones(2, "f4"), "c": np.zeros(5, "u1"), "d": np.zeros(1, "i8")}
    write_safetensors(tmp_path / "a", tensors)
    safetensors.numpy.save_file(tensors, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def entry(shape, offsets, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry([2], [0, 3])}, bytes(3)),
        ({"a": entry([2], [1, 3])}, bytes(3)),
        ({"a": entry([2], [0, 2]), "b": entry([2], [1, 3])}, bytes(3)),
        ({"a": entry([2], [0, 2]), "b": entry([2], [3, 5])}, bytes(5)),
        ({"a": entry([2], [0, 2])}, bytes(1)),
        ({"a": entry([2], [0, 2])}, bytes(3)),
        ({"a": entry([1 << 40, 1 << 40], [0, 2])}, bytes(2)),
        ({"a": entry([2], [0, 2], "X8")}, bytes(2)),
        ({"a": entry([-2], [0, 2])}, bytes(2)),
        ({"__metadata__": {"a": 1}}, b""),
        ('{"a":1,', b""),
    ],
)
def test_what_the_library_refuses_we_refuse(tmp_path, header, data):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(tmp_path / "a")
    with pytest.raises(FormatError):
        open_safetensors(tmp_path / "a")


def test_we_read_what_the_gguf_library_writes(tmp_path):
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -30000)
    writer.add_int32("i32", -(1 << 30))
    writer.add_uint64("u64", 1 << 63)
    writer.add_int64("i64", -(1 << 62))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_string("text", "Ġ中文")
    writer.add_array("texts", ["a", "Ġb", ""])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("floats", [0.5, 1.5])
    writer.add_array("flags", [True, False])
    values = rng.normal(size=(4, 64)).astype(np.float32)
    writer.add_tensor("plain", values)
    writer.add_tensor("half", values.astype(np.float16))
    for name in ("Q8_0", "Q4_0", "Q5_1", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    opened, theirs = open_gguf(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    assert opened.metadata == {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert opened.metadata["i64"] == -(1 << 62) and opened.metadata["texts"] == ["a", "Ġb", ""]
    for tensor in theirs.tensors:
        info = opened.tensors[tensor.name]
        assert info.shape == tuple(tensor.shape[::-1]) == (4, 64)
        assert (info.offset, info.nbytes) == (tensor.data_offset, tensor.n_bytes)
        assert np.array_equal(opened.read(tensor.name), gguf.dequantize(tensor.data, tensor.tensor_type))


def test_the_gguf_library_reads_what_we_write(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    metadata = {"general.architecture": "llama", "int": 7, "minus": -7, "long": 1 << 40, "float": 0.5, "double": 0.1}
    metadata |= {"yes": True, "text": "Ġ中文", "texts": ["a", "Ġb", ""], "ints": [1, -2], "floats": [0.5]}
    tensors = {f.name: BlockTensor(f, values.shape, lambda: values) for f in FORMATS.values() if f.name in ENCODERS}
    tensors["vector"] = BlockTensor(FORMATS[0], (3,), lambda: np.arange(3, dtype=np.float32))
    write_gguf(tmp_path / "a.gguf", metadata, tensors)

    theirs, ours = gguf.GGUFReader(tmp_path / "a.gguf"), open_gguf(tmp_path / "a.gguf")
    assert {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")} == metadata
    types = {key: [kind.name for kind in field.types] for key, field in theirs.fields.items()}
    assert types["int"] == ["UINT32"] and types["float"] == ["FLOAT32"] and types["ints"] == ["ARRAY", "INT32"]
    assert [tensor.name for tensor in theirs.tensors] == list(tensors)
    for tensor in theirs.tensors:
        assert tensor.tensor_type.name == tensors[tensor.name].format.name
        assert tuple(tensor.shape[::-1]) == tensors[tensor.name].shape
        assert np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), ours.read(tensor.name))
