"""The fixed table of the primitives of every room: class, part, instance and material of each.

Every room has the same slots, in this order, and switches some of them off. So labels are looked up, not drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from faar_ray.config.class_names import HUMAN_PARTS, SCENES

CLASSES, PARTS = SCENES, HUMAN_PARTS
GARMENTS = ("skin", "shirt", "trousers")
TEXTURES = ("checks", "stripes", "noise")
PERSON = CLASSES.index("person")


class Slot(NamedTuple):
    """A row of the table: one primitive. `instance` 0 is the room itself."""

    semantic: str
    part: str
    instance: int
    material: str


def _limb(upper: str, lower: str, upper_material: str, lower_material: str) -> tuple[Slot, Slot]:
    return Slot("person", upper, 1, upper_material), Slot("person", lower, 1, lower_material)


_ARM = _limb("upper arm", "lower arm", "shirt", "skin")
_LEG = _limb("upper leg", "lower leg", "trousers", "trousers")

SPHERES = (*(Slot("ball", "background", 2 + i, f"ball {i}") for i in range(3)), Slot("person", "head", 1, "skin"))
LIMBS = (Slot("person", "torso", 1, "shirt"), *_ARM, *_ARM, *_LEG, *_LEG)
RODS = tuple(Slot("rod", "background", 5 + i, f"rod {i}") for i in range(2))
CAPSULES = (*LIMBS, *RODS)
CYLINDERS = tuple(Slot("pillar", "background", 7 + i, f"pillar {i}") for i in range(2))
CRATES = tuple(Slot("crate", "background", 9 + i, f"crate {i}") for i in range(2))
BOXES = (*CRATES, *(Slot("table", "background", 11, "table") for _ in range(3)))  # slab, two side panels
PLANES = tuple(Slot(name, "background", 0, name) for name in ("floor", "wall", "wall", "wall", "ceiling"))
COUNTS = tuple(len(kind) for kind in (SPHERES, CAPSULES, CYLINDERS, BOXES, PLANES))
SLOTS = (*SPHERES, *CAPSULES, *CYLINDERS, *BOXES, *PLANES)

INSTANCES = 1 + max(slot.instance for slot in SLOTS)
MATERIALS = tuple(dict.fromkeys(slot.material for slot in SLOTS))

# Tables over the slots, shape (P,) with P = len(SLOTS).
SEMANTIC_P = torch.tensor([CLASSES.index(slot.semantic) for slot in SLOTS])
PART_P = torch.tensor([PARTS.index(slot.part) for slot in SLOTS])
INSTANCE_P = torch.tensor([slot.instance for slot in SLOTS])
MATERIAL_P = torch.tensor([MATERIALS.index(slot.material) for slot in SLOTS])

# Instances that a room may lack, without the person.
OBJECTS = tuple(range(2, INSTANCES))

# Table over the materials, shape (M,): the class that a material belongs to.
MATERIAL_CLASS_M = torch.tensor(
    [CLASSES.index(next(slot.semantic for slot in SLOTS if slot.material == name)) for name in MATERIALS]
)
