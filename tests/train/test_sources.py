from __future__ import annotations

import gzip
import http.server
import io
import struct
import tarfile
import threading

import numpy as np
import pytest

from assay.errors import InvalidTask
from assay.train.sources import cache_folder, download, read_cifar, read_idx, unpack


def idx(array: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def cifar(num: int, label: int = 3) -> bytes:
    rows = np.zeros((num, 3073), np.uint8)
    rows[:, 0] = label
    rows[:, 1:] = np.arange(3072) % 251
    return rows.tobytes()


@pytest.fixture
def server():
    """Serve what the test puts into the dict, over real HTTP: path -> (body, length announced)."""
    pages: dict[str, tuple[bytes, int]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in pages:
                return self.send_error(404)
            body, length = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield pages, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_kept_and_not_fetched_again(server, tmp_path):
    pages, url = server
    pages["/data"] = (b"content", 7)
    path = tmp_path / "new" / "data"
    download(f"{url}/data", path)
    assert path.read_bytes() == b"content"
    pages.clear()
    download(f"{url}/data", path)
    assert [p.name for p in path.parent.iterdir()] == ["data"]


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    pages, url = server
    pages["/data"] = (b"cont", 7)
    with pytest.raises(InvalidTask, match=r"/data cannot be downloaded .*by folder="):
        download(f"{url}/data", tmp_path / "data")
    with pytest.raises(InvalidTask, match=r"cannot be downloaded .*404"):
        download(f"{url}/none", tmp_path / "data")
    with pytest.raises(InvalidTask, match="cannot be downloaded"):
        download("file:///nowhere/at/all", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read(tmp_path, zipped):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = gzip.compress(idx(array)) if zipped else idx(array)
    (tmp_path / f"some-idx3-ubyte{'.gz' if zipped else ''}").write_bytes(content)
    tensor = read_idx(tmp_path, "some-idx3")
    assert np.array_equal(tensor.numpy(), array)
    tensor[0] = 9  # its memory is its own


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("some-ubyte", b"\x00\x00", "is no IDX file of bytes"),
        ("some-ubyte", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "is no IDX file of bytes"),
        ("some-ubyte", b"\x00\x00\x08\x03\x00\x00", "is no IDX file of bytes"),
        ("some-ubyte", idx(np.zeros((2, 3), np.uint8))[:-1], r"has 5 bytes for shape \(2, 3\)"),
        ("some-ubyte.gz", gzip.compress(b"abc", mtime=0)[:-4], "is broken .*fetch it again"),
        ("some-ubyte.gz", b"no gzip", "is broken .*fetch it again"),
        ("other", b"", "has no some-ubyte.gz; give the folder of the IDX files"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidTask, match=message):
        read_idx(tmp_path, "some")


def test_cifar_rows_are_label_then_pixels_channel_by_channel(tmp_path):
    (tmp_path / "b.bin").write_bytes(cifar(2, label=7))
    images, labels = read_cifar(tmp_path / "b.bin")
    assert labels.tolist() == [7, 7]
    assert images.shape == (2, 3, 32, 32)
    assert images[1, 2, 5, 6] == (2 * 1024 + 5 * 32 + 6) % 251


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar(2)[:-1], "b.bin is cut short: 6145 bytes are no rows of 3073"),
        (b"", "b.bin is cut short: 0 bytes"),
        (cifar(1, label=10), "b.bin holds label 10; CIFAR-10 has labels 0 to 9"),
        (None, "b.bin is missing; give the folder of CIFAR-10's binary version"),
    ],
)
def test_what_is_no_cifar_file_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "b.bin").write_bytes(content)
    with pytest.raises(InvalidTask, match=message):
        read_cifar(tmp_path / "b.bin")


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("deep"))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_an_archive_is_emptied_into_its_folder_and_nowhere_else(tmp_path):
    archive(tmp_path / "a.tar.gz", {"deep/one.bin": b"1", "../../two.bin": b"2"})
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "one.bin").read_bytes() == b"1"
    assert (tmp_path / "out" / "two.bin").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_broken_archive_is_refused_and_removed(tmp_path):
    archive(tmp_path / "a.tar.gz", {"one.bin": bytes(range(256)) * 100})
    whole = (tmp_path / "a.tar.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"junk"):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(InvalidTask, match=r"was broken .* and is removed; try again"):
            unpack(tmp_path / "a.tar.gz", tmp_path / "out")
        assert not (tmp_path / "a.tar.gz").exists()
        assert not (tmp_path / "out" / "one.bin").exists()


def test_the_cache_lies_under_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("some") == tmp_path / ".cache" / "assay" / "some"
    assert list(tmp_path.iterdir()) == []
