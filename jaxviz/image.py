"""Images as arrays: read, write, resize, crop, normalize.

Everywhere in jaxviz an image is a float array (H, W, C) with values in [0, 1]; batches have more axes in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from jaxviz._atomic import write_atomically
from jaxviz._errors import ArgumentError, ImageError
from jaxviz._types import Array, ArrayLike, StrPath

Size: TypeAlias = int | tuple[int, int]
Method: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]

MAX_PIXELS = 2**27  # of an image file: 134 million, more than cameras have
_CONTAINERS = ("ICO", "ICNS", "BLP")  # contain images of any size, which only Pillow's limit bounds
_METHODS = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos3"}


def load(path: StrPath, size: Size | None = None) -> np.ndarray:
    """Read an image file as a float32 array (H, W, 3) with values in [0, 1].

    Every format that Pillow reads. The camera's rotation (EXIF) is applied; gray, palette, CMYK and 16-bit images become RGB;
    transparent pixels are blended with white; animations give their first frame; color profiles are ignored. Images of more
    than `MAX_PIXELS` are refused before decoding, whatever Pillow's own limit is.

    Args:
        path: The image file.
        size: None keeps the image's own size. `(H, W)`, or an int for a square, scales the image (bilinear, with
            antialiasing, same aspect ratio) until it covers that size, and crops it at both sides.

    Returns:
        float32 (H, W, 3) in [0, 1].

    Raises:
        ImageError: The file is missing, not an image, damaged, truncated, a program (EPS), or has too many pixels.

    >>> import tempfile
    >>> path = save(tempfile.mkdtemp() + "/gray.png", np.full((4, 6, 3), 0.2))
    >>> load(path, 2).shape
    (2, 2, 3)
    """
    hw = None if size is None else as_pair(size)
    try:
        with Image.open(path, formats=_formats()) as file:
            _check(file)
            image = _rgb_or_float(ImageOps.exif_transpose(file))
        if hw is not None:
            image = ImageOps.fit(image, (hw[1], hw[0]), Image.Resampling.BILINEAR)
        array = np.asarray(image, np.float32)
    except FileNotFoundError as error:
        raise ImageError(f"Cannot read the image '{path}': there is no such file.") from error
    except Exception as error:  # Pillow's decoders raise some fifteen types, from struct.error to SyntaxError
        raise ImageError(f"Cannot read the image '{path}': {str(error) or type(error).__name__}") from error
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=-1)
    return array / np.float32(255)


def _formats() -> list[str] | None:
    """Return the formats to try; None for all."""
    if 0 < (Image.MAX_IMAGE_PIXELS or 0) <= MAX_PIXELS:
        return None
    Image.preinit()  # the usual ones first
    Image.init()
    return [name for name in Image.ID if name not in _CONTAINERS]


def _check(file: Image.Image) -> None:
    """Refuse, by its header, a file that would fill the memory, or for which Pillow would start another program."""
    if file.width * file.height > MAX_PIXELS:
        most = f"{MAX_PIXELS // 10**6} million"
        raise ImageError(f"{file.width}x{file.height} pixels are more than {most}; it could be a decompression bomb.")
    if file.format == "EPS":
        raise ImageError("EPS is a program that draws, not an image; convert it to PNG.")


def _rgb_or_float(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, or as gray float in [0, 1] where it has more than 8 bits."""
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image).astype(np.float32)
        array = array / 65535 if image.mode.startswith("I") else array
        if not (array.size and np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"values of a '{image.mode}' image must fit in 16 bits, or in [0, 1] if they are floats.")
        return Image.fromarray(array)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def save(path: StrPath, image: ArrayLike) -> Path:
    """Write an image file in the format of the suffix of `path` (`.png` keeps the 8-bit values exactly).

    The file appears in one step; missing folders are created.

    Args:
        path: The file to write.
        image: (H, W, 3), (H, W, 1) or (H, W); float in [0, 1] (other values are clipped), or uint8.

    Returns:
        The path.

    Raises:
        ImageError: An unknown suffix, or a file that cannot be written.
    """
    path = Path(path)
    picture = to_pillow(image)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ImageError(f"Cannot write the image '{path}': unknown suffix '{path.suffix}'; use .png or .jpg.")
    try:
        return write_atomically(path, lambda file: picture.save(file, format=kind))
    except (OSError, ValueError) as error:
        raise ImageError(f"Cannot write the image '{path}': {error}") from error


def save_animation(path: StrPath, images: ArrayLike, *, seconds: float = 0.1) -> Path:
    """Write images as the frames of an animation, such as the snapshots `result.snapshots[0, 0]` of an ascent.

    Args:
        path: The file to write; `.gif`, `.webp` or `.png`.
        images: (T, H, W, 3), (T, H, W, 1) or (T, H, W, 4), T at least 1; floats in [0, 1], or uint8. Transparent pixels are
            blended with white.
        seconds: The duration of a frame, above 0.

    Returns:
        The path.

    Raises:
        ArgumentError: A wrong shape or duration.
        ImageError: An unknown suffix, or a file that cannot be written.

    >>> import tempfile
    >>> jaxviz.image.save_animation(tempfile.mkdtemp() + "/photos.gif", photos, seconds=0.5).name
    'photos.gif'
    """
    path, array = Path(path), np.asarray(images)
    if array.ndim != 4 or not len(array) or not seconds > 0:
        raise ArgumentError(f"Expected images (T, H, W, C) and seconds above 0; got shape {array.shape} and {seconds!r}.")
    kind = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"Cannot write the animation '{path}': unknown suffix '{path.suffix}'; use .gif.")
    first, *rest = [_rgb_or_float(to_pillow(frame)) for frame in array]
    options = {"save_all": True, "append_images": rest, "duration": round(1000 * seconds), "loop": 0}
    try:
        return write_atomically(path, lambda file: first.save(file, format=kind, **options))
    except (OSError, ValueError) as error:
        raise ImageError(f"Cannot write the animation '{path}': {error}") from error


def to_pillow(image: ArrayLike) -> Image.Image:
    """Return one image (H, W, 3), (H, W, 4), (H, W, 1) or (H, W) as an 8-bit Pillow image (`RGB`, `RGBA`, or `L` for gray)."""
    array = to_uint8(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if (array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4))) or 0 in array.shape:
        raise ArgumentError(f"Expected an image of shape (H, W, 3), (H, W, 4), (H, W, 1) or (H, W), got {np.shape(image)}.")
    return Image.fromarray(array)


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Convert floats in [0, 1] to uint8, rounded and clipped; uint8 passes unchanged, NaN becomes 0.

    >>> to_uint8(np.array([-0.5, 0.0, 0.5, 1.0, 2.0]))
    array([  0,   0, 128, 255, 255], dtype=uint8)
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype == jnp.bfloat16):
        raise ArgumentError(f"Expected floats in [0, 1] or uint8, got {array.dtype}. Divide 16-bit values by 65535.")
    array = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.floor(np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)


def resize(images: ArrayLike, size: Size, method: Method = "bilinear") -> Array:
    """Resize images (..., H, W, C) to `size`, with antialiasing where they shrink; works on traced arrays.

    Args:
        images: Floats (..., H, W, C).
        size: `(H, W)`, or an int for a square. The aspect ratio may change.
        method: "nearest", "bilinear", "bicubic" or "lanczos". The last two can slightly leave [0, 1].

    Returns:
        Floats (..., height, width, C).

    >>> resize(np.zeros((2, 8, 6, 3), np.float32), (4, 3)).shape
    (2, 4, 3, 3)
    """
    if method not in _METHODS:
        raise ArgumentError(f"Unknown method {method!r}; expected one of {', '.join(_METHODS)}.")
    shape = _image_shape(images)
    return jax.image.resize(jnp.asarray(images), (*shape[:-3], *as_pair(size), shape[-1]), _METHODS[method])


def crop(images: ArrayLike, size: Size) -> ArrayLike:
    """Return the center of `size` of images (..., H, W, C); works on traced arrays.

    >>> crop(np.zeros((2, 8, 6, 3)), (4, 4)).shape
    (2, 4, 4, 3)
    """
    height, width = as_pair(size)
    shape = _image_shape(images)
    if height > shape[-3] or width > shape[-2]:
        raise ArgumentError(f"Cannot crop {height}x{width} pixels from images of {shape[-3]}x{shape[-2]}.")
    top, left = (shape[-3] - height) // 2, (shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


def normalize(images: ArrayLike, mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]) -> Array:
    """Return `(images - mean) / std`, the input of a network, of images (..., C) in [0, 1]; works on traced arrays.

    Args:
        images: Floats (..., C).
        mean, std: (C,), or scalars.

    Raises:
        ArgumentError: Not floats, or a wrong number of channels.
    """
    images = jnp.asarray(images)
    return (images - _per_channel(mean, images)) / _per_channel(std, images)


def denormalize(images: ArrayLike, mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]) -> Array:
    """Return `images * std + mean`, the inverse of `normalize`; works on traced arrays.

    >>> float(denormalize(normalize(np.full((1, 1, 3), 0.25), [0.5], [0.2]), [0.5], [0.2])[0, 0, 0])
    0.25
    """
    images = jnp.asarray(images)
    return images * _per_channel(std, images) + _per_channel(mean, images)


def _per_channel(values: ArrayLike | Sequence[float], images: Array) -> Array:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ArgumentError(f"Expected float images in [0, 1], got {images.dtype}; divide 8-bit values by 255.")
    array = jnp.asarray(values, images.dtype)
    if array.ndim > 1 or array.size not in (1, images.shape[-1]):
        raise ArgumentError(f"Expected one value per channel, shape ({images.shape[-1]},), got {array.shape}.")
    return array.reshape((1,) * (images.ndim - 1) + (-1,))  # explicit: works under jax_numpy_rank_promotion="raise"


def _image_shape(images: ArrayLike) -> tuple[int, ...]:
    shape = tuple(images.shape)
    if len(shape) < 3 or 0 in shape[-3:]:
        raise ArgumentError(f"Expected images of shape (..., H, W, C), got {shape}.")
    return shape


def as_pair(size: Size) -> tuple[int, int]:
    """Return (height, width) of a size, which may be an int for a square.

    Raises:
        ArgumentError: not positive whole numbers.
    """
    pair: list[Any] = [*size] if isinstance(size, tuple | list) else [size, size]
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) and v > 0 for v in pair):
        raise ArgumentError(f"Expected a size as a positive int or (height, width), got {size!r}.")
    return int(pair[0]), int(pair[1])
