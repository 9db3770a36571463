"""Pictures as cameras, phones and tools write them are read as a viewer shows them, or refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from faar_ray.data.photographs.photograph import largest_pixels, read_photograph
from faar_ray.errors import DataError

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)
ORIENTATION = 0x0112
AS_STORED = {  # orientation -> how a camera stores what a viewer shows upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
Save = Callable[[Image.Image], None]


def scene() -> np.ndarray[Any, Any]:
    """Four corners of different colours, 40 high and 60 wide."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = RED, GREEN, BLUE, WHITE
    return pixels


def near(path: Path, pixels: np.ndarray[Any, Any], tolerance: int = 0) -> bool:
    shown = np.asarray(read_photograph(path)).astype(int)
    return shown.shape == pixels.shape and bool(np.abs(shown - pixels).max() <= tolerance)


def png(width: int, height: int, bits: int, kind: int, raw: bytes, *, more: bytes = b"") -> bytes:
    """A PNG by hand: what Pillow does not write itself."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    stride = len(raw) // height
    lines = b"".join(b"\0" + raw[i * stride : (i + 1) * stride] for i in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("orientation", AS_STORED)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_an_orientation_is_undone(tmp_path: Path, orientation: int, kind: str) -> None:
    path, exif = tmp_path / f"x.{kind}", Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = {"lossless": True} if kind == "webp" else {"quality": 95, "subsampling": 0} if kind == "jpg" else {}
    stored = np.ascontiguousarray(AS_STORED[orientation](scene()))
    Image.fromarray(stored).save(path, exif=exif, **lossless)
    assert near(path, scene(), tolerance=90 if kind == "jpg" else 0)  # jpg rings at edges of blocks


def test_an_exif_block_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "x.png", exif=b"Exif\0\0MV\0*\0\0\0\x08\0\0")
    assert near(tmp_path / "x.png", scene())


def test_grey_of_16_bits_keeps_its_brightness(tmp_path: Path) -> None:
    grey = np.repeat(np.linspace(0, 65535, 60).round().astype(np.uint16)[None], 40, 0)
    expected = np.repeat((grey / 257).round().astype(np.uint8)[..., None], 3, 2)
    (tmp_path / "x.pgm").write_bytes(b"P5 60 40 65535\n" + grey.astype(">u2").tobytes())
    for name in ("x.png", "x.tiff"):
        Image.fromarray(grey).save(tmp_path / name)
    for name in ("x.png", "x.tiff", "x.pgm"):
        assert near(tmp_path / name, expected, tolerance=1), name
    black_is_zero, white_is_zero = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    Image.fromarray(65535 - grey).save(tmp_path / "x.tiff")
    raw = (tmp_path / "x.tiff").read_bytes()
    assert raw.count(black_is_zero) == 1
    (tmp_path / "x.tiff").write_bytes(raw.replace(black_is_zero, white_is_zero))
    assert near(tmp_path / "x.tiff", expected, tolerance=1)


@pytest.mark.parametrize(("kind", "opacity"), [(2, ()), (6, (65535,))], ids=["rgb", "rgba"])
def test_colours_of_16_bits_are_read(tmp_path: Path, kind: int, opacity: tuple[int, ...]) -> None:
    values = np.broadcast_to(np.array([65535, 32896, 0, *opacity], ">u2"), (4, 6, 3 + len(opacity)))
    (tmp_path / "x.png").write_bytes(png(6, 4, 16, kind, values.tobytes()))
    assert near(tmp_path / "x.png", np.broadcast_to([255, 128, 0], (4, 6, 3)))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.indices((40, 60)).sum(0) % 2 == 0
    for name in ("x.png", "x.bmp", "x.tiff"):
        Image.fromarray(bits).save(tmp_path / name)
        assert near(tmp_path / name, np.repeat(bits[..., None] * 255, 3, 2)), name


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    """The colours beneath are black: they must not show."""
    opacity = Image.fromarray(np.full((40, 60), 0, np.uint8))
    opacity.paste(255, (0, 0, 30, 40))
    picture = Image.new("RGB", (60, 40), (0, 0, 0))
    picture.putalpha(opacity)
    expected = np.full((40, 60, 3), 255)
    expected[:, :30] = 0
    name = "x.gif" if mode == "PA" else "x.png"
    (picture if mode == "PA" else picture.convert(mode)).save(tmp_path / name)
    assert near(tmp_path / name, expected)


def test_half_opaque_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "x.png")
    assert near(tmp_path / "x.png", np.full((4, 4, 3), 127))


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_are_read(tmp_path: Path, transparent: bool) -> None:
    palette = Image.fromarray(scene()).quantize(4)
    red = int(np.asarray(palette)[0, 0])
    palette.save(tmp_path / "x.png", **({"transparency": red} if transparent else {}))
    expected = scene()
    if transparent:
        expected[:20, :30] = WHITE
    assert near(tmp_path / "x.png", expected)


@pytest.mark.parametrize(("kind", "bits", "key"), [(0, 8, (77,)), (0, 16, (777,)), (2, 8, (1, 2, 3))])
def test_a_value_that_a_png_calls_transparent_shows_white(
    tmp_path: Path, kind: int, bits: int, key: tuple[int, ...]
) -> None:
    values = np.zeros((4, 6, len(key)), ">u2" if bits == 16 else "u1")
    values[:, :3] = key
    data = struct.pack(f">{len(key)}H", *key)
    more = struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    (tmp_path / "x.png").write_bytes(png(6, 4, bits, kind, values.tobytes(), more=more))
    expected = np.zeros((4, 6, 3))
    expected[:, :3] = 255
    assert near(tmp_path / "x.png", expected)


def test_printing_colours_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    assert near(tmp_path / "x.jpg", np.broadcast_to(RED, (16, 16, 3)), tolerance=3)


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's blue, and the reverse."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    at = 128 + 4
    names = {bytes(data[at + 12 * i : at + 12 * i + 4]): i for i in range(struct.unpack_from(">I", data, 128)[0])}
    assert {b"rXYZ", b"bXYZ"} <= names.keys()
    return bytes(data).replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_embedded_profile_is_followed(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(AS_STORED[orientation](scene()))
    Image.fromarray(stored).save(tmp_path / "x.png", icc_profile=swapped_profile(), exif=exif)
    assert near(tmp_path / "x.png", scene()[..., ::-1], tolerance=2)


def test_a_profile_of_srgb_changes_no_value(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "x.png", icc_profile=profile)
    assert near(tmp_path / "x.png", pixels)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_profile_that_is_broken_or_of_other_channels_is_passed_over(tmp_path: Path, mode: str) -> None:
    for profile in (b"no profile", swapped_profile() if mode == "CMYK" else b"\0" * 200):
        Image.new("RGB", (16, 16), WHITE).convert(mode).save(tmp_path / "x.jpg", icc_profile=profile)
        assert near(tmp_path / "x.jpg", np.full((16, 16, 3), 255), tolerance=2)


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.tiff", "x.mpo"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if "webp" in name else {})
    )
    assert near(tmp_path / name, np.broadcast_to(RED, (16, 16, 3)), tolerance=3)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9])
def test_a_cut_off_picture_is_named(tmp_path: Path, kind: str, keep: float) -> None:
    whole = saved(kind)
    (tmp_path / "x").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(DataError, match=r"x: cannot be read as a picture"):
        read_photograph(tmp_path / "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_flipped_bytes_are_read_or_refused_and_never_a_traceback(tmp_path: Path, kind: str) -> None:
    if kind not in Image.SAVE and not (Image.init() or kind in Image.SAVE):
        pytest.skip(f"this Pillow writes no {kind}")
    whole, generator, refused = saved(kind), np.random.default_rng(0), 0
    for _ in range(40):
        broken = bytearray(whole)
        for position in generator.integers(0, min(len(whole), 400), 4):
            broken[position] = int(generator.integers(256))
        (tmp_path / "x").write_bytes(broken)
        try:
            assert read_photograph(tmp_path / "x").mode == "RGB"
        except DataError as fault:
            refused += str(fault).startswith(str(tmp_path / "x"))
    assert refused > 0


def write(path: Path, what: Any) -> None:
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        what(path)


def raw_data(path: Path) -> None:
    Image.new("RGB", (16, 12)).save(path, "tiff", tiffinfo={254: 1})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am no picture", r"cannot be read as a picture \(of JPEG, PNG"),
        (b"%PDF-1.7\n", "cannot be read as a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC.*save it as JPEG or PNG"),
        (b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0", "camera's raw data"),
        (raw_data, "camera's raw data"),
        (lambda path: Image.new("F", (4, 4)).save(path, "tiff"), "float value"),
        (lambda path: Image.new("I", (4, 4)).save(path, "tiff"), "32-bit"),
        (Path.mkdir, "is a folder"),
        (lambda path: None, "no such picture"),
    ],
    ids=["empty", "text", "pdf", "eps", "heic", "cr2", "dng", "float", "int32", "folder", "nothing"],
)  # fmt: skip
def test_what_is_no_picture_is_refused_with_its_reason(tmp_path: Path, what: Any, says: str) -> None:
    write(tmp_path / "x", what)
    with pytest.raises(DataError, match=f"x: .*{says}"):
        read_photograph(tmp_path / "x")


def test_a_picture_beyond_pillows_limit_is_refused_and_one_below_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(20_000, 20_000, 8, 0, b"\0" * 20_000))  # its header is enough
    with pytest.raises(DataError, match=f"more than the {largest_pixels() / 1e6:.0f} megapixels"):
        read_photograph(path)

    Image.fromarray(scene()).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)  # Pillow warns, and warnings are errors here
    assert near(path, scene())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 // 2 - 1)
    with pytest.raises(DataError, match="megapixels"):
        read_photograph(path)
