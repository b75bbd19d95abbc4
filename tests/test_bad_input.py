"""What is broken or hostile gets one sentence, and no code in it is run: a table of inputs and messages."""

import io
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from saliency_lib import data
from saliency_lib.audit.checkpoints import content as content_of
from saliency_lib.book import profiles
from saliency_lib.data.folders import decode
from saliency_lib.ensembles import files


def file(name: str, content: bytes):
    """Write a file and give its path."""

    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def picture(name: str, image: Image.Image, **options):
    """Save an image and give its path."""

    def write(folder):
        image.save(folder / name, **options)
        return folder / name

    return write


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing of it."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    return whole + struct.pack(">I", 1000) + b"IDAT"


class Code:
    """Pickled, it touches a file when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch run-by-the-pickle",)


def torch_saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def safetensors(folder):
    save_file({"weight": torch.zeros(100)}, folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


ROW = np.linspace(0, 65535, 8).astype(np.uint16)
NOT_FINITE = np.full((8, 8), np.nan, np.float32)
UNREADABLE = [
    ("0 bytes", file("a.png", b""), "cannot be read as an image .*: replace it or remove it"),
    ("text", file("a.png", b"<html>404</html>"), "cannot be read as an image"),
    ("truncated", file("a.png", header(8, 8)), "cannot be read as an image"),
    ("20,000 x 20,000", file("a.png", header(20_000, 20_000)), "400000000 pixels.*decompression bomb"),
    ("pixels not finite", picture("a.tiff", Image.fromarray(NOT_FINITE)), "its pixels have 32 bits; save it with 8"),
]


@pytest.mark.parametrize("make,message", [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_pictures_that_cannot_be_read(make, message, tmp_path):
    with pytest.raises(data.DataError, match=message):
        decode(make(tmp_path), 8, 3)


FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
READABLE = [
    ("1 x 1", picture("a.png", Image.new("RGB", (1, 1), (10, 20, 30))), lambda p: (p[0] == 10).all()),
    ("CMYK", picture("a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))), lambda p: p[0].min() > 200 > p[1].max()),
    ("16 bits", picture("a.png", Image.fromarray(np.tile(ROW, (8, 1)))),
     lambda p: torch.equal(p[0, 0], torch.from_numpy(ROW.astype(np.float32) / 257))),
    ("animated", picture("a.webp", FRAMES[0], save_all=True, append_images=FRAMES[1:], lossless=True),
     lambda p: p[0].min() > 200 > p[2].max()),
    ("with an alpha channel", picture("a.png", Image.new("RGBA", (8, 8), (9, 9, 9, 0))),
     lambda p: p[:, 0, 0].tolist() == [124, 116, 104]),
    ("palette", picture("a.png", FRAMES[1].convert("P")), lambda p: p[2].min() > 200),
    ("1 x 500", picture("a.png", Image.new("L", (1, 500), 7)), lambda p: (p == 7).all()),
]  # fmt: skip


@pytest.mark.parametrize("make,holds", [case[1:] for case in READABLE], ids=[case[0] for case in READABLE])
def test_unusual_pictures_are_read_as_one_would_expect(make, holds, tmp_path):
    pixels = decode(make(tmp_path), 8, 3)
    assert pixels.shape == (3, 8, 8) and holds(pixels)


CHECKPOINTS = [
    ("truncated safetensors", "a.safetensors", lambda folder: safetensors(folder)[:200], "cannot be read"),
    ("no bytes", "a.safetensors", lambda folder: b"", "cannot be read"),
    ("a pickle named safetensors", "a.safetensors", lambda folder: pickle.dumps({"w": 1}), "cannot be read"),
    ("a header of 2^60 bytes", "a.safetensors", lambda folder: struct.pack("<Q", 2**60) + b"{}", "cannot be read"),
    ("code", "a.pt", lambda folder: torch_saved({"w": Code()}), "whose code would have to be run"),
    ("code in a bare pickle", "a.pt", lambda folder: pickle.dumps(Code()), "cannot be read as weights or is broken"),
    ("code named safetensors", "a.safetensors", lambda folder: torch_saved(Code()), "whose code would have to be run"),
    ("a whole module", "a.pt", lambda folder: torch_saved(torch.nn.ReLU()), "objects of torch.nn.*ReLU, whose code"),
]


@pytest.mark.parametrize("name,content,message", [c[1:] for c in CHECKPOINTS], ids=[c[0] for c in CHECKPOINTS])
def test_checkpoints_that_are_none(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = file(name, content(tmp_path))(tmp_path)
    with pytest.raises(ValueError, match=message):
        content_of(path)
    with pytest.raises(files.CorruptMember, match=f"{name} cannot be read"):
        files.load(path, "an-ensemble")
    assert not (tmp_path / "run-by-the-pickle").exists()


def tar(folder, name: str, content: bytes):
    with tarfile.open(folder / "imagenette2-160.tgz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name,content", [("../escaped", b"x"), ("imagenette2-160/bomb", bytes(10_000_000))])
def test_an_archive_beside_the_data_is_never_unpacked(name, content, tmp_path, monkeypatch):
    """Only what torchvision has fetched itself and whose checksum is right is."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # that of the first call is kept for good, with its proxies
    root = tmp_path / "data"
    root.mkdir()
    tar(root, name, content)
    with pytest.raises(data.DataError, match="imagenette is not under .* and could not be downloaded"):
        data.load("imagenette", "val", root=root)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "imagenette2-160.tgz"]


PROFILES = [
    (
        "an unknown parameter",
        "02_gradient_snr: {members: 3}",
        "02_gradient_snr has no parameter 'members'; it has prof",
    ),
    ("a mistyped one", "02_gradient_snr: {n_kept: three}", "n_kept='three' of 02_gradient_snr should be int"),
    ("an unknown field", "ensembles: {main: {members: 3}}", "main.members: ensembles have no such field; they have"),
    ("a mistyped field", "ensembles: {main: {n_members: yes}}", "main.n_members=True should be int"),
    ("a value in place of fields", "ensembles: {main: 3}", "main=3 should be fields of an ensemble"),
    ("an unknown notebook", "22_x: {n: 1}", "names notebooks that do not exist: 22_x"),
    ("no YAML", "02_gradient_snr: {n_members: 3", "bad.yaml cannot be read as YAML: .* line 1"),
    ("a list", "- 1\n- 2", "bad.yaml should hold 'notebook:' lines with indented 'parameter: value' lines"),
    ("a value in place of parameters", "02_gradient_snr: 3", "bad.yaml should hold 'notebook:' lines"),
    ("code", "02_gradient_snr: !!python/object/apply:os.system ['touch run']", "bad.yaml cannot be read as YAML"),
    ("bytes", "\udcff\udcfe", "bad.yaml cannot be read as YAML"),
]


@pytest.mark.parametrize("content,message", [case[1:] for case in PROFILES], ids=[case[0] for case in PROFILES])
def test_profiles_that_are_off(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "names", lambda: ["bad"])
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    read = profiles._read
    monkeypatch.setattr(profiles, "_read", lambda _: read(tmp_path / "bad"))
    with pytest.raises(ValueError, match=message):
        profiles.load("bad")


def test_labels_of_a_data_set_are_its_classes():
    pixels, one = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.ones(1)
    with pytest.raises(ValueError, match="mine has labels from 0 to 3, but 3 classes, which count from 0 to 2"):
        data.ImageData(pixels, torch.tensor([0, 3]), None, ("a", "b", "c"), one, one, "mine")
