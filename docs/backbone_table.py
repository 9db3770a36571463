"""Makes the tables of `docs/backbones.md`: `python docs/backbone_table.py`. A test compares them with the page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import timm

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError
from faar_ray.models import micro
from faar_ray.models.backbone import BACKBONES, check_backbone, family_of
from faar_ray.models.image_statistics import STATISTICS, statistics_of
from faar_ray.models.timm_weights import outline
from faar_ray.models.weight_packages import PACKAGES

PAGE = Path(__file__).with_name("backbones.md")
LARGEST_BUILT = 30e6
"""Parameters of what `tests/models/test_backbone_table.py` adapts and trains for a step."""
TRIED = (
    *("swin_micro", "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "swin_base_patch4_window7_224"),
    *("swin_base_patch4_window12_384", "swin_large_patch4_window7_224", "swin_s3_tiny_224"),
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
    *("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224", "deit3_small_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch14_dinov2"),
    *("vit_base_patch14_reg4_dinov2", "vit_large_patch14_dinov2", "vit_giant_patch14_dinov2"),
    *("vit_base_patch16_224.dino", "vit_base_patch16_224.mae"),
    *("vit_base_patch16_clip_224.openai", "vit_base_patch16_clip_224", "vit_large_patch14_clip_224.openai"),
    *("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "convnextv2_tiny"),
    *("efficientnet_b0", "tf_efficientnet_b0", "tf_efficientnet_b4", "tf_efficientnet_lite0", "tf_efficientnet_lite4"),
    *("tf_efficientnetv2_s", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"),
    *("mobilenetv4_conv_small", "mnasnet_100", "swinv2_tiny_window8_256"),
)
"""In the table's order."""


def rows() -> Iterator[list[str]]:
    """Cells of each row."""
    for name in TRIED:
        yield [f"`{name}`", *facts(name), tested(name)]


def facts(name: str) -> list[str]:
    """Family, parameters, image and patch, statistics, weights and licence."""
    family = next(key for key, value in BACKBONES.items() if value is family_of(name))
    statistics = next(key for key, value in STATISTICS.items() if value == statistics_of(BackboneConfig(name=name)))
    size = f"{parameters(name) / 1e6:.1f}"
    card = timm.models.get_pretrained_cfg(name)
    if card is None:
        return [family, size, "64, 4", statistics, "in this package", "Apache-2.0"]
    patches = getattr(outline(name), "patch_embed", None)
    patch = "" if patches is None else f", {patches.patch_size[0]}"
    return [family, size, f"{card.input_size[-1]}{patch}", statistics, f"`{card.tag}`", str(card.license)]


def parameters(name: str) -> int:
    """Without a classifier."""
    model = micro.architecture() if name == micro.NAME else outline(name)
    return sum(parameter.numel() for parameter in model.parameters())


def fault(name: str) -> str:
    """Why it is refused; "" for nothing."""
    try:
        check_backbone(BackboneConfig(name=name, pyramid="stages"))
    except ConfigError as error:
        return str(error).partition("cannot be adapted: ")[2].partition(";")[0]
    return ""


def tested(name: str) -> str:
    """What was tried with it."""
    if why := fault(name):
        return f"refused: {why}"
    package = next((package for package, entry in PACKAGES.items() if entry.backbone == name), "")
    real = {micro.NAME: "trained with its weights", **({name: f"weights of `package:{package}`"} if package else {})}
    built = "a training step" if parameters(name) < LARGEST_BUILT else "outline only"
    return ", ".join([built, *([real[name]] if name in real else [])])


@cache
def table() -> str:
    """In Markdown."""
    first = ["`backbone.name`", "family", "M parameters", "image, patch"]
    head = [*first, "statistics", "timm's weights", "licence", "tried"]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows()])


def packages() -> str:
    """The table of packages with weights."""
    head = ["`backbone.checkpoint`", "`backbone.name`", "trained on", "licence", "source"]
    cells = [
        [f"`package:{name}`", f"`{entry.backbone}`", entry.trained_on, entry.licence, f"<{entry.source}>"]
        for name, entry in PACKAGES.items()
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells])


def with_tables(text: str) -> str:
    """The page with the tables between their marks."""
    for name, block in {"backbones": table(), "packages": packages()}.items():
        begin, end = f"<!-- {name}: made by `python docs/backbone_table.py` -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{block}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
