"""The two domains of `scenes`: the same objects, but other cameras, textures, poses and colours.

The backbone was pretrained on `source`; a search adapts it to `target`. Pairs are ranges of uniform draws.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """What differs between domains; lengths in metres, angles in radians unless a name says degrees."""

    number: int
    camera_height: Range
    camera_pitch: Range
    camera_yaw: float
    field_of_view_degrees: Range
    objects: tuple[int, int]
    object_scale: float
    person_share: float
    pose_spread: float
    texture_weights: tuple[float, float, float]
    texture_frequency: Range
    texture_contrast: float
    saturation: Range
    class_colour_share: float
    class_hue_shift: float
    ambient_light: Range
    tint: float
    gamma: Range
    vignette: float
    blur_share: float
    noise: Range
    colours_rolled: bool


SOURCE = Domain(
    number=0,
    camera_height=(1.2, 1.9),
    camera_pitch=(0.10, 0.35),
    camera_yaw=0.175,
    field_of_view_degrees=(48.0, 60.0),
    objects=(2, 4),
    object_scale=1.0,
    person_share=0.75,
    pose_spread=0.6,
    texture_weights=(0.40, 0.35, 0.25),
    texture_frequency=(1.0, 2.5),
    texture_contrast=0.35,
    saturation=(0.45, 0.95),
    class_colour_share=0.5,
    class_hue_shift=0.0,
    ambient_light=(0.40, 0.60),
    tint=0.05,
    gamma=(0.75, 0.95),
    vignette=0.0,
    blur_share=0.0,
    noise=(0.005, 0.02),
    colours_rolled=False,
)

TARGET = Domain(
    number=1,
    camera_height=(0.7, 2.4),
    camera_pitch=(0.0, 0.45),
    camera_yaw=0.35,
    field_of_view_degrees=(52.0, 74.0),
    objects=(2, 6),
    object_scale=0.95,
    person_share=0.75,
    pose_spread=1.1,
    texture_weights=(0.15, 0.30, 0.55),
    texture_frequency=(1.5, 5.0),
    texture_contrast=0.6,
    saturation=(0.1, 0.6),
    class_colour_share=0.2,
    class_hue_shift=0.37,
    ambient_light=(0.25, 0.50),
    tint=0.30,
    gamma=(0.6, 1.2),
    vignette=0.5,
    blur_share=0.5,
    noise=(0.02, 0.06),
    colours_rolled=True,
)

DOMAINS: dict[str, Domain] = {"source": SOURCE, "target": TARGET}
