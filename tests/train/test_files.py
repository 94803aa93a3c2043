from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from assay.errors import InvalidStudy, Unwritable
from assay.train import files
from assay.train.files import load_tensors, save_tensors

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@given(st.dictionaries(st.text(min_size=1), JSON, max_size=4), st.sampled_from(DTYPES))
def test_what_is_saved_is_loaded(values, dtype):
    import tempfile
    from pathlib import Path

    tensors = {
        "1/scalar": torch.ones(()).to(dtype),
        "1/empty": torch.zeros(0, 3).to(dtype),
        "1/matrix": torch.arange(6).reshape(2, 3).to(dtype),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_tensors(path, {**values, **tensors})
        loaded = load_tensors(path)
    assert {k: v for k, v in loaded.items() if k not in tensors} == values
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def test_views_shared_tensors_and_any_memory_format_are_taken(tmp_path):
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    state = {
        "same": base,
        "again": base,
        "turned": base.to(memory_format=torch.channels_last),
        "part": base[..., ::2],
        "parameter": torch.nn.Parameter(base),
    }
    save_tensors(tmp_path / "new" / "folder" / "s.safetensors", state)
    loaded = load_tensors(tmp_path / "new" / "folder" / "s.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_what_is_tied_is_written_once_and_is_tied_again(tmp_path):
    weight = torch.arange(4000.0)
    state = {"b": weight, "a": weight.detach(), "view": weight.view(40, 100), "none": weight[:0]}
    save_tensors(tmp_path / "tied", state)
    save_tensors(tmp_path / "one", {"a": weight, "view": weight.view(40, 100)})
    assert (tmp_path / "tied").stat().st_size < (tmp_path / "one").stat().st_size + 500
    loaded = load_tensors(tmp_path / "tied")
    assert set(loaded) == set(state)
    assert loaded["a"] is loaded["b"]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_the_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    save_tensors(path, {"step": 1})

    def fail(*args, **kwargs):
        args[1].write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_tensors(path, {"step": 2})
    assert load_tensors(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["s.safetensors"]


def test_what_is_neither_tensor_nor_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_tensors(tmp_path / "s.safetensors", {"x": object()})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"junk that is no safetensors file at all", None])
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "s.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidStudy, match=r"s\.safetensors cannot be read as saved weights"):
        load_tensors(path)


def test_what_cannot_be_written_is_told_with_the_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match=r"file/state.safetensors cannot be written \("):
        save_tensors(tmp_path / "file" / "state.safetensors", {"a": torch.ones(1)})

    def full(*given, **options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    path = tmp_path / "state.safetensors"
    with pytest.raises(Unwritable, match="No space left on device"):
        save_tensors(path, {"a": torch.ones(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
