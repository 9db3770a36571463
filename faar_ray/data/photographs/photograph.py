"""Pictures as cameras, phones and tools write them, read as a viewer shows them.

Upright by their EXIF orientation, the colours of an embedded profile as sRGB, 16 bits as 8, what is transparent on
white, and of several frames or pages the first.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from faar_ray.errors import DataError

FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "DIB", "PPM", "JPEG2000")
"""What is read, by Pillow's names; others are documents, or start a program to be drawn."""
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of an ICC profile -> Pillow's mode."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
HEADER_BYTES = 16
BITS_PER_SAMPLE, PHOTOMETRIC, SUBFILE_TYPE, DNG_VERSION = 258, 262, 254, 50706
"""Tags of TIFF."""


def read_photograph(path: Path) -> Image.Image:
    """A picture in mode RGB, upright, as sRGB.

    Raises:
        DataError: naming the file and why it cannot be read: missing, empty, cut off, no picture, of a kind whose
            look is not defined (32-bit values, a camera's raw data), or of more pixels than Pillow decodes.
    """
    _check_file(path)
    return _decoded(path, path)


def decode_photograph(content: bytes, source: str) -> Image.Image:
    """The same from a file's bytes; `source` names it in errors.

    Raises:
        DataError: as `read_photograph`.
    """
    return _decoded(io.BytesIO(content), Path(source))


def _decoded(file: Path | io.BytesIO, path: Path) -> Image.Image:
    with _data_error(path), Image.open(file, formats=_formats()) as opened:
        _check_kind(path, opened)
        opened.load()
        with suppress(Exception):  # an EXIF block that cannot be read says nothing
            ImageOps.exif_transpose(opened, in_place=True)
        return _on_white(opened)


def largest_pixels() -> float:
    """Pixels of the largest picture that Pillow decodes: twice the count from which it warns."""
    return 2.0 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else float("inf")


@contextmanager
def _data_error(path: Path) -> Iterator[None]:
    """Tell whatever a decoder says of a broken file as a fault of the file; its warnings are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: has more than the {largest_pixels() / 1e6:.0f} megapixels that are read; save it smaller"
        ) from None
    except UnidentifiedImageError:
        readable = ", ".join(name for name in _formats() if name not in ("MPO", "DIB"))
        raise DataError(f"{path}: cannot be read as a picture (of {readable})") from None
    except Exception as fault:  # decoders tell of bad files in many words and classes
        reason = str(fault) or type(fault).__name__
        raise DataError(f"{path}: cannot be read as a picture, it is damaged or cut off ({reason})") from None


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_file(path: Path) -> None:
    """Refuse what is no file with bytes, and phones' HEIC, which Pillow does not know."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder, must be a picture")
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is no regular file, must be a picture")
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror})") from None

    if not header:
        raise DataError(f"{path}: is empty, must be a picture")
    if header[4:8] == b"ftyp" and header[8:12] in HEIF_BRANDS and "HEIF" not in _formats():
        raise DataError(f"{path}: is HEIC, which is not read; save it as JPEG or PNG")
    if header[:4] in (b"II*\0", b"MM\0*") and header[8:10] == b"CR":
        raise DataError(f"{path}: is a camera's raw data, which is not read; save it as JPEG or PNG")


def _check_kind(path: Path, opened: Image.Image) -> None:
    """Refuse what has no one look: 32-bit values, and raw data with a thumbnail before them."""
    tags: Any = getattr(opened, "tag_v2", {})
    if DNG_VERSION in tags or tags.get(SUBFILE_TYPE, 0) & 1:
        raise DataError(f"{path}: is a camera's raw data, which is not read; save it as JPEG or PNG")
    if opened.mode == "F" or (opened.mode == "I" and opened.format == "TIFF"):
        raise DataError(
            f"{path}: has one signed, 32-bit or float value a pixel, and which of them is white is not said; "
            "save it with 8 or 16 bits"
        )


def _on_white(picture: Image.Image) -> Image.Image:
    """8-bit sRGB; what is transparent shows white."""
    opacity, is_grey = None, picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
    if picture.mode.startswith("I"):
        picture, opacity = _from_16_bit(picture)
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        opacity = picture.getchannel("A")

    colours = _as_srgb(picture, "GRAY" if is_grey else "CMYK" if picture.mode == "CMYK" else "RGB")
    if opacity is None:
        return colours
    white = Image.new("RGB", colours.size, "white")
    white.paste(colours, mask=opacity)
    return white


def _from_16_bit(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Grey values of 16 bits, or as many as a TIFF says, as 8; and the opacity, if one value is transparent."""
    tags: Any = getattr(picture, "tag_v2", {})
    largest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(picture).astype(np.uint32)
    grey = ((values * 255 + largest // 2) // largest).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
        grey = 255 - grey

    result = Image.fromarray(grey)
    result.info = {key: value for key, value in picture.info.items() if key == "icc_profile"}
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return result, None
    return result, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _as_srgb(picture: Image.Image, space: str) -> Image.Image:
    """The colours that the embedded profile means; one that cannot be read or is of other channels is passed over.

    Args:
        picture: of 8 bits.
        space: of its channels, GRAY, RGB or CMYK.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        of_profile = source.profile.xcolor_space.strip()
        if of_profile == space or (of_profile, space) == ("RGB", "GRAY"):
            given, target = picture.convert(PROFILE_MODES[of_profile]), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(given, source, target, outputMode="RGB")
            assert converted is not None  # as always, unless in place
            return converted
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError, TypeError):
        pass
    return picture.convert("RGB")
