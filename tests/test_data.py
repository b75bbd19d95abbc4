"""Data sets: embedded ones are deterministic and true to their sources; files are read whole or refused by name."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from saliency_lib import data
from saliency_lib.data import embedded, folders


def pictures(folder, split, classes=("a", "b", "c"), n=6, size=(40, 30), mode="RGB"):
    """A tree of images whose grey level tells their class."""
    for k, name in enumerate(classes):
        (folder / split / name).mkdir(parents=True)
        for i in range(n):
            colour = (20 * k + 10,) * 3 if mode == "RGB" else 20 * k + 10
            Image.new(mode, size, colour).save(folder / split / name / f"{i}.png")


def idx_files(folder, broken=None):
    """Files of MNIST's layout and size; the first three pixels of an image are its number, its label number % 10."""
    folder.mkdir(parents=True)
    for prefix, n in (("train", 60000), ("t10k", 10000)):
        pixels = np.zeros((n, 28, 28), np.uint8)
        number = np.arange(n)
        pixels[:, 0, 0], pixels[:, 0, 1], pixels[:, 0, 2] = number // 65536, number // 256 % 256, number % 256
        head = np.array([0x00000803, n, 28, 28], ">i4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x00000801, n], ">i4").tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + (number % 10).astype(np.uint8).tobytes())
    if broken:
        path = folder / broken
        path.write_bytes(path.read_bytes()[:-100])


def numbers(images):
    return (images[:, 0, 0, :3].long() * torch.tensor([65536, 256, 1])).sum(1)


@pytest.mark.parametrize("name,size", [("digits", 8), ("photodigits", 32), ("photodigits", 64), ("cdigits", 16)])
def test_embedded_sets_have_the_constants_that_normalise_them(name, size):
    train = data.load(name, "train", size=size)
    x = train.inputs()
    assert x.dtype == torch.float32 and train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.images.shape[2:] == (size, size)
    assert x.mean((0, 2, 3)).abs().max() < 0.01 and (x.std((0, 2, 3)) - 1).abs().max() < 0.03


def test_digits_are_scikit_learns_and_split_by_scan():
    train, val = (data.load("digits", split) for split in ("train", "val"))
    original = load_digits()
    ours = torch.cat([train.images, val.images]).flatten(1).float().div(255 / 16).round().long()
    theirs = torch.from_numpy(original.images).flatten(1).long()
    assert len(train) + len(val) == len(theirs) == 1797
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert np.array_equal(np.sort(torch.cat([train.labels, val.labels]).numpy()), np.sort(original.target))


@pytest.mark.parametrize("name", ["photodigits", "cdigits"])
def test_composed_images_do_not_depend_on_how_many_are_asked_for(name):
    few, more = data.load(name, "val", n=20), data.load(name, "val", n=50)
    assert torch.equal(few.images, more.images[:20]) and torch.equal(few.masks, more.masks[:20])
    assert not torch.equal(few.images, data.load(name, "train", n=20).images)


def test_cdigits_are_white_and_in_the_middle():
    """As in CMNIST: the digit tells nothing by its colour or place, and its background is a photograph's."""
    val = data.load("cdigits", "val", n=200, size=32)
    inside = val.masks[:, None].expand(-1, 3, -1, -1)
    assert val.images[inside].float().mean() > 230 and val.images[~inside].float().mean() < 180
    assert not val.masks[:, 0].any() and not val.masks[:, -1].any(), "7/8 of the picture leave its edge free"
    x = torch.arange(32.0) - 15.5
    shares = val.masks.float() / val.masks.sum((1, 2), keepdim=True)
    assert (shares.sum(1) @ x).abs().max() < 6 and (shares.sum(2) @ x).abs().max() < 6


@pytest.mark.parametrize("name", ["photodigits", "cdigits"])
def test_images_of_one_scan_are_known_and_have_its_label(name):
    val = data.load(name, "val", n=600)
    which, labels = embedded.scan_of(name, "val", 600), embedded.scans("val")[1]
    assert torch.equal(labels[which], val.labels) and len(which.unique()) < 360 < 600
    assert torch.equal(embedded.scan_of("digits", "val", 5), torch.arange(5))


def test_photodigits_masks_lie_on_one_colour_that_stands_out():
    """Where the ink is full the colour is the digit's own; the background differs from it in luma on average."""
    val = data.load("photodigits", "val", n=100, size=64)
    luma = (val.images.float() / 255 * embedded.LUMA.view(1, 3, 1, 1)).sum(1)
    assert 0.05 < val.masks.float().mean() < 0.5
    for image, mask in zip(luma, val.masks):
        core = torch.nn.functional.avg_pool2d(mask[None].float(), 5, 1, 2)[0] == 1
        if core.sum() > 5:
            assert image[core].std() < 0.06
        outside = ~(torch.nn.functional.max_pool2d(mask[None].float(), 9, 1, 4)[0] > 0)
        assert (image[mask].median() - image[outside].mean()).abs() > 0.1


def test_composed_images_are_kept_and_made_again_when_what_is_kept_is_broken(monkeypatch, tmp_path):
    monkeypatch.setenv("SALIENCY_RESULTS", str(tmp_path))
    first = data.load("photodigits", "val", n=7)
    (file,) = tmp_path.glob("*.pickle")
    file.write_bytes(file.read_bytes()[:100])
    again = data.load("photodigits", "val", n=7)
    assert torch.equal(first.images, again.images) and again.masks.dtype == torch.bool
    made = file.stat().st_mtime_ns
    data.load("photodigits", "val", n=7)
    assert file.stat().st_size > 100 and file.stat().st_mtime_ns == made, "nothing is composed again"


THREE = data.load("digits", "val", n=3)


@given(st.integers(0, 255), st.integers(0, 255))
def test_normalising_follows_mean_and_std(a, b):
    x = THREE.normalise(torch.tensor([[[[a, b]]]], dtype=torch.uint8))
    expected = (torch.tensor([[[[a, b]]]]) / 255 - THREE.mean) / THREE.std
    torch.testing.assert_close(x, expected.float(), atol=1e-5, rtol=1e-5)


def test_taking_keeps_images_labels_and_masks_together():
    val = data.load("photodigits", "val", n=10)
    some = val.take([3, 1])
    assert len(some) == 2 and torch.equal(some.images[0], val.images[3])
    assert torch.equal(some.labels, val.labels[[3, 1]]) and torch.equal(some.masks[1], val.masks[1])
    assert val.pictures().shape == (10, 32, 32, 3) and data.load("digits", "val", n=2).pictures().shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("nosuch", "train"), "unknown data set 'nosuch'"),
        (("digits", "test"), "no split 'test'"),
        (("digits", "val", 361), "there are 360"),
        (("digits", "val", 0), "n=0"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(*arguments)


def test_fashion_mnist_has_the_papers_split(tmp_path):
    idx_files(tmp_path / "FashionMNIST" / "raw")
    train, val, test = (data.load("fashion_mnist", split, root=tmp_path) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (48000, 12000, 10000)
    both = torch.cat([numbers(train.images), numbers(val.images)])
    assert torch.equal(both.sort().values, torch.arange(60000))
    assert torch.equal(numbers(train.images) % 10, train.labels)
    assert train.labels.bincount().min() > 4600, "the split is shuffled"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_truncated_files_are_refused_by_name(tmp_path, file):
    idx_files(tmp_path / "MNIST" / "raw", broken=file)
    with pytest.raises(data.DataError, match=rf"{file} has [\d,]+ bytes in place of .*run again to download"):
        data.load("mnist", "train", root=tmp_path)


def test_wrong_labels_are_refused(tmp_path):
    idx_files(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\xfe")
    with pytest.raises(data.DataError, match="labels from 0 to 254"):
        data.load("mnist", "train", root=tmp_path)


def download(broken=None, missing=None, failure=None):
    """A stand-in for torchvision's download that brings all files but what it is told to spoil."""

    def fetch(self):
        raw = Path(self.root) / "MNIST" / "raw"
        idx_files(raw, broken)
        if missing:
            (raw / missing).unlink()
        if failure:
            raise RuntimeError(failure)

    return fetch


@pytest.mark.parametrize(
    "spoilt,message",
    [
        ({"missing": "t10k-images-idx3-ubyte", "failure": "connection reset by peer"}, "connection reset by peer"),
        ({"missing": "train-images-idx3-ubyte"}, "not found"),
        ({"broken": "t10k-images-idx3-ubyte"}, "it ended early: .*t10k-images-idx3-ubyte has"),
    ],
)
def test_half_a_download_never_counts(tmp_path, monkeypatch, spoilt, message):
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download(**spoilt))
    with pytest.raises(data.DataError, match=f"mnist is not under .* could not be downloaded .*{message}.*: put"):
        data.load("mnist", "train", root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download())
    assert len(data.load("mnist", "val", root=tmp_path)) == 10000
    assert [p.name for p in tmp_path.iterdir()] == ["MNIST"]


def test_cifar10_with_a_broken_batch_is_refused_by_name(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"junk")
    with pytest.raises(data.DataError, match="data_batch_1 is missing or corrupt"):
        data.load("cifar10", "train", root=tmp_path)


def test_imagenette_that_is_not_whole_is_refused(tmp_path):
    (tmp_path / "imagenette2-160" / "train" / "n01440764").mkdir(parents=True)
    with pytest.raises(data.DataError, match="train has 0 images in place of 9,469"):
        data.load("imagenette", "train", root=tmp_path)


def test_any_set_is_read_from_a_tree_of_folders(tmp_path):
    pictures(tmp_path / "cifar10", "train")
    pictures(tmp_path / "cifar10", "test", n=2)
    train, val = (data.load("cifar10", split, root=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (18, 6) and train.shape == (3, 32, 32) and train.classes == ("a", "b", "c")
    assert torch.equal(train.images[:, 0, 0, 0].long(), 20 * train.labels + 10)
    assert len(train.labels[:9].unique()) == 3, "the first images are a sample of all classes"
    assert data.DATASETS["imagenette"].size == 128


def test_what_was_read_is_known_by_where_it_came_from_and_a_digest(tmp_path, monkeypatch):
    read = {}
    monkeypatch.setattr(data.registry, "READ", read)
    pictures(tmp_path / "cifar10", "train", n=2)
    data.load("cifar10", "train", root=tmp_path)
    val = data.load("digits", "val", n=7)
    assert list(read) == ["cifar10 train", "digits val"]
    facts = read["digits val"]
    assert (facts["images"], facts["pixels"], facts["source"]) == (7, 8, "embedded")
    assert read["cifar10 train"]["source"] == "a tree of .png files"
    assert facts["sha256"] == hashlib.sha256(bytes(val.images.numpy()) + bytes(val.labels.numpy())).hexdigest()[:16]
    digest, file = read["cifar10 train"]["sha256"], tmp_path / "cifar10" / "train" / "a" / "0.png"
    Image.new("RGB", (40, 30), (11, 10, 10)).save(file)
    data.load("cifar10", "train", root=tmp_path)
    assert read["cifar10 train"]["sha256"] != digest, "one grey level more is another copy"


@pytest.mark.parametrize("splits", [True, False])
def test_ones_own_images(tmp_path, splits):
    if splits:
        pictures(tmp_path, "train")
        pictures(tmp_path, "val", n=1)
    else:
        pictures(tmp_path.parent, tmp_path.name, n=10)
    train, val = (data.load(f"folder:{tmp_path}", split, size=24) for split in ("train", "val"))
    assert (len(train), len(val)) == ((18, 3) if splits else (24, 6))
    assert train.shape == (3, 24, 24)
    assert train.inputs().mean().abs() < 1e-3 and torch.equal(train.mean, val.mean)


def test_labels_follow_the_classes_of_the_training_split(tmp_path):
    pictures(tmp_path, "train")
    for name in "ac":
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name / "0.png")
    assert data.load(f"folder:{tmp_path}", "val", size=8).labels.sort().values.tolist() == [0, 2]
    (tmp_path / "val" / "d").mkdir()
    with pytest.raises(data.DataError, match="classes that the training split has not: d"):
        data.load(f"folder:{tmp_path}", "val", size=8)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    white = Image.new(mode, (9, 30), 65535) if mode == "I;16" else Image.new("RGB", (9, 30), "white").convert(mode)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            white.save(tmp_path / name / f"{i}.{suffix}")
    found = data.load(f"folder:{tmp_path}", "train", size=16)
    assert found.shape == (3, 16, 16) and (found.images == 255).all()


def test_broken_pictures_and_empty_folders_are_refused_by_name(tmp_path):
    with pytest.raises(data.DataError, match="is not a folder"):
        data.load(f"folder:{tmp_path}/none", "train")
    with pytest.raises(data.DataError, match="holds no images"):
        data.load(f"folder:{tmp_path}", "train")
    pictures(tmp_path.parent, tmp_path.name)
    (tmp_path / "a" / "broken.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    with pytest.raises(data.DataError, match="broken.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("train,val", [("Train", "Validation"), ("training", "valid"), ("train", "Test")])
def test_folders_of_images_by_other_names_and_what_is_hidden_in_them(train, val, tmp_path):
    for split in (train, val):
        for k, place in enumerate(("cat", "dog", ".ipynb_checkpoints")):
            (tmp_path / split / place).mkdir(parents=True)
            for name in (f"{k}.png", f"._{k}.png"):
                Image.new("RGB", (8, 8)).save(tmp_path / split / place / name)
    for split in ("train", "val"):
        found = data.load(f"folder:{tmp_path}", split, size=8)
        assert found.classes == ("cat", "dog") and found.labels.sort().values.tolist() == [0, 1]
    (tmp_path / val / "dog" / "1.png").unlink()
    with pytest.warns(UserWarning, match="has classes without images: dog"):
        data.load(f"folder:{tmp_path}", "val", size=8)
    Image.new("RGB", (8, 8)).save(tmp_path / train / "loose.gif")
    with pytest.warns(UserWarning) as said:
        assert len(data.load(f"folder:{tmp_path}", "train", size=8)) == 2
    assert any("holds 1 images beside its folders, as loose.gif" in str(w.message) for w in said)


def test_cmnist_spreads_backgrounds_evenly_over_digits(tmp_path):
    idx_files(tmp_path / "MNIST" / "raw")
    names = [f"{k}" for k in range(10)]
    pictures(tmp_path / "cifar10", "train", names, n=3, size=(32, 32))
    pictures(tmp_path / "cifar10", "test", names, n=3, size=(32, 32))
    val = data.load("cmnist", "val", root=tmp_path)
    assert val.shape == (3, 32, 32) and val.masks.shape == (10000, 32, 32)
    background = (val.images[:, 0, 31, 31].long() - 10) // 20
    counts = torch.stack([(background[val.labels == k]).bincount(minlength=10) for k in range(10)])
    assert (counts == 100).all()
    white = val.images.permute(0, 2, 3, 1)[val.masks].float()
    assert len(white) and white.min() > 120


def test_one_function_is_a_new_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(data.registry, "DATASETS", dict(data.DATASETS))

    @data.DataSet(("dark", "bright"), 4, mean=(0.5,), std=(0.25,), splits=("val",))
    def shades(split, n, size, root):
        (root / split).touch()
        levels = torch.arange(0, 256, 5, dtype=torch.uint8)
        return {"images": levels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4), "labels": (levels > 127).long()}

    val = data.load("shades", "val", n=30, size=6, root=tmp_path)
    assert (tmp_path / "val").exists() and val.shape == (1, 6, 6) and len(val) == 30
    assert val.inputs([0, 29]).unique().tolist() == pytest.approx([-2, 4 * (145 / 255 - 0.5)], abs=1e-6)
    assert val.classes[val.labels[29]] == "bright" and val.masks is None
    with pytest.raises(ValueError, match=r"shades has no split 'train'; one of \['val'\]"):
        data.load("shades", "train")


def test_colours_stand_out_by_the_contrast_and_stay_where_they_do_already():
    grey, behind = (part.flatten() for part in torch.meshgrid(*[torch.linspace(0, 1, 21)] * 2, indexing="ij"))
    found = embedded._standing_out(grey[:, None].expand(-1, 3), behind)
    apart = (grey - behind).abs() > embedded.CONTRAST + 1e-6
    assert ((found @ embedded.LUMA - behind).abs() > embedded.CONTRAST - 1e-5).all()
    torch.testing.assert_close(found[apart, 0], grey[apart])


def test_masks_are_resized_to_the_pixels_that_are_mostly_of_the_object(monkeypatch):
    monkeypatch.setattr(data.registry, "DATASETS", dict(data.DATASETS))

    @data.DataSet(("a",), 8, mean=(0.5,), std=(0.25,), splits=("val",))
    def half(split, n, size, root):
        masks = torch.zeros(1, 8, 8, dtype=torch.bool)
        masks[:, :, :4] = True
        return {"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "labels": torch.tensor([0]), "masks": masks}

    masks = data.load("half", "val", size=4).masks
    assert masks[0].float().mean(0).tolist() == [1, 1, 0, 0]


def test_the_middle_of_a_picture_is_cut_out(tmp_path):
    row = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None], 10, 0)  # 30 wide, 10 high
    for values, name in ((row, "wide.png"), (row.T, "high.png")):
        Image.fromarray(np.ascontiguousarray(values)).save(tmp_path / name)
        found = folders.decode(tmp_path / name, 10, 1)[0].float()
        assert abs(found.mean().item() - row.mean()) < 1 and found.min() == 80


def test_cmnist_shows_all_pictures_of_a_class(tmp_path):
    idx_files(tmp_path / "MNIST" / "raw")
    pictures(tmp_path / "cifar10", "train", [f"{k}" for k in range(10)], n=3, size=(32, 32))
    pictures(tmp_path / "cifar10", "test", [f"{k}" for k in range(10)], n=3, size=(32, 32))
    for path in (tmp_path / "cifar10" / "test").glob("*/*.png"):
        image = np.array(Image.open(path))
        image[..., 1] = 60 * int(path.stem)
        Image.fromarray(image).save(path)
    val = data.load("cmnist", "val", root=tmp_path)
    assert val.images[:, 1, 31, 31].unique().tolist() == [0, 60, 120]
    for k in range(10):
        counts = val.images[val.images[:, 0, 31, 31] == 20 * k + 10][:, 1, 31, 31].long().bincount(minlength=121)
        assert sorted(counts[[0, 60, 120]].tolist()) == [333, 333, 334]


def test_folders_of_pictures_that_cannot_be_split(tmp_path):
    make_image(tmp_path / "one" / "cat" / "a.png")
    with pytest.raises(data.DataError, match="holds one image; two are needed"):
        data.load(f"folder:{tmp_path / 'one'}", "val")
    make_image(tmp_path / "half" / "train" / "cat" / "a.png")
    with pytest.raises(data.DataError, match="has train alone; the other part"):
        data.load(f"folder:{tmp_path / 'half'}", "train")


@pytest.mark.parametrize("sizes", [{"n": 0}, {"n": -1}, {"size": 0}, {"size": -4}])
def test_sizes_are_one_or_more(sizes):
    with pytest.raises(ValueError, match="should be one or more"):
        data.load("digits", "val", **sizes)


def test_the_first_so_many_by_a_number_of_numpy():
    assert len(data.load("digits", "val").take(np.int64(5))) == 5


def make_image(path):
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)


def test_pictures_that_are_stored_in_other_proportions_get_the_size(monkeypatch):
    def tall(split, n, size, root):
        return {"images": torch.zeros(6, 1, 24, 16, dtype=torch.uint8), "labels": torch.zeros(6, dtype=torch.int64)}

    monkeypatch.setattr(data.registry, "DATASETS", {})
    data.registry.DataSet(classes=("a",), size=16, mean=(0.0,), std=(1.0,))(tall)
    found = data.load("tall", "train", size=16)
    assert found.shape == (1, 16, 16) and found.pictures(3).shape == (1, 16, 16, 3)
