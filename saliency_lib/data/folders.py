"""Images in folders, one folder a class: ``<folder>/<class>/<image>``."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from saliency_lib.data.images import DataError
from saliency_lib.data.registry import DataSet
from saliency_lib.runtime.store import kept

SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".avif", ".ppm", ".pgm", ".tif", ".tiff"
}  # fmt: skip
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test", "testing")}
BEHIND = (124, 116, 104)  # transparent pixels: the mean colour of ImageNet


def split_folder(base: Path, split: str) -> Path | None:
    """``base/train`` for the training split, ``base/val`` or the like, or else ``base/test``, for the validation split,
    in capitals or not."""
    found = {path.name.lower(): path for path in visible(base) if path.is_dir()}
    return next((found[name] for name in SPLITS[split] if name in found), None)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, if there is one, but for what editors, version control and file systems hide; sorted."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """The pictures in a folder, by their names' ends."""
    return [path for path in visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]


def listing(folder: Path, classes: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Class names in alphabetical order, and every image with its label, in a fixed shuffled order.

    ``classes`` are those of the training split, which number the labels of every split.

    The order is shuffled, since a tree is sorted by class and the first n images are to be a fair sample.
    """
    found = tuple(path.name for path in visible(folder) if path.is_dir())
    classes = classes or found
    if unknown := sorted(set(found) - set(classes)):
        raise DataError(f"{folder} has classes that the training split has not: {', '.join(unknown)}; remove them")
    files = [(path, classes.index(name)) for name in found for path in images_in(folder / name)]
    if not files:
        raise DataError(f"{folder} holds no images: it should have one folder of images per class")
    if empty := sorted(set(found) - {path.parent.name for path, _ in files}):
        warnings.warn(f"{folder} has classes without images: {', '.join(empty)}", stacklevel=2)
    if loose := images_in(folder):
        beside = f"{folder} holds {len(loose)} images beside its folders, as {loose[0].name}"
        warnings.warn(f"{beside}; they are of no class and left out", stacklevel=2)
    order = np.random.default_rng(len(files)).permutation(len(files))
    return classes, [files[i] for i in order]


def decode(path: Path, size: int | Sequence[int], channels: int) -> Tensor:
    """One image file as (c, h, w) uint8, of 16 bits per pixel float32 from 0 to 255: turned upright, made just as large
    as the size, a side or (h, w), and the middle cut out.

    Of an animated one the first frame is taken; transparent pixels show ``BEHIND``.
    """
    try:
        with Image.open(path) as image:
            fine = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
            image = ImageOps.exif_transpose(image)
            if fine:
                image = Image.fromarray(np.asarray(image, np.float32) / 257)
            elif image.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits; save it with 8 or 16")
            else:
                image = _opaque(image).convert("L" if channels == 1 else "RGB")
            height, width = (size, size) if isinstance(size, int) else size
            if image.size != (width, height):
                scale = max(width / image.width, height / image.height)
                shape = max(width, round(image.width * scale)), max(height, round(image.height * scale))
                left, top = (shape[0] - width) // 2, (shape[1] - height) // 2
                image = image.resize(shape, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
            pixels = torch.from_numpy(np.array(image))
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}): replace it or remove it") from error
    return pixels.expand(channels, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def see_through(image: Image.Image) -> bool:
    """Whether some of its pixels may be transparent."""
    return "A" in image.getbands() or "transparency" in image.info


def _opaque(image: Image.Image) -> Image.Image:
    """The image before ``BEHIND``."""
    if not see_through(image):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*BEHIND, 255)), image)


def decoded(files: list[tuple[Path, int]], size: int, channels: int) -> dict[str, Tensor]:
    """Images and labels of a listing's files, from the store as long as no file has changed."""
    dated = [(path, label, path.stat().st_size, path.stat().st_mtime_ns) for path, label in files]
    pixels = torch.from_numpy(kept(_decoded, dated, size, channels))
    return {"images": pixels, "labels": torch.tensor([label for _, label in files])}


def _decoded(dated: list[tuple[Path, int, int, int]], size: int, channels: int) -> np.ndarray:
    """Pixels (n, c, size, size) of dated files; an array takes less memory than a tensor on its way to the disk."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda file: decode(file[0], size, channels), dated)
        return torch.stack([pixels.round().to(torch.uint8) for pixels in found]).numpy()


@DataSet(classes=(), size=64, mean=(), std=())
def folder(split: str, n: int | None, size: int, root: Path) -> dict:
    """Images of one's own under ``root``, in ``{train,val}/<class>/``, or in ``<class>/``: every fifth for validation.

    Mean and deviation are those of the training images.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give folder:/path with images in /path/<class>/")
    train, val = (split_folder(root, part) for part in ("train", "val"))
    if train and val:
        classes, files = listing(train)
        files = {"train": files, "val": listing(val, classes)[1]}
    else:
        if (only := train or val) and not any(images_in(path) for path in visible(root) if path.is_dir()):
            raise DataError(f"{root} has {only.name} alone; the other part, train or val, is missing")
        classes, files = listing(root)
        if len(files) < 2:
            raise DataError(f"{root} holds one image; two are needed, one of them for validation")
        files = {"train": [file for i, file in enumerate(files) if i % 5], "val": files[::5]}
    found = {part: decoded(files[part], size, channels=3) for part in {"train", split}}
    scaled = found["train"]["images"].float().div(255).transpose(0, 1).flatten(1)
    own = {"classes": classes, "mean": scaled.mean(1), "std": scaled.std(1).clamp(min=1e-3)}
    return found[split] | own | {"source": "a folder of pictures"}
