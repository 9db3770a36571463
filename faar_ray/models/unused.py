"""Parameters that reach no output: they are there because a published count holds them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class Unused(nn.Module):
    """Trainable by name, moved by nothing: no gradient reaches them."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        super().__init__()
        for name, parameter in parameters:
            self.register_parameter(name.replace(".", "_"), parameter)


def unused_parameters(model: nn.Module) -> list[str]:
    """Their names in a model."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, Unused)
        for name, _ in module.named_parameters()
    ]


def drop_unused(module: nn.Module) -> None:
    """Delete them, in place and recursively."""
    for name, child in list(module.named_children()):
        if isinstance(child, Unused):
            delattr(module, name)
        else:
            drop_unused(child)
