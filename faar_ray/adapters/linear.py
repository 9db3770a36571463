"""Linears whose frozen weight is adapted once (shared) or once per task.

Axes: T tasks, S streams in (1 or K), K streams out, N tokens, I in, O out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faar_ray.adapters.adapter import Adapter
from faar_ray.adapters.fast.functional import dropped_products, merged_products, shared_input_products


class AdaptedLinear(nn.Module):
    """y = W' x + b with one adapter; the bias stays outside the adapter."""

    def __init__(self, base: nn.Linear, adapter: Adapter) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return adapted(self.base, [self.adapter], x[None], drop=True)[0]


class TaskLinears(nn.Module):
    """y_t = W'_t x_t + b: one frozen weight, one adapter per task.

    `adapter.dropout` is on what all tasks still share, with one mask for all; a stream of a task's own is not dropped
    (MTLoRA's and TADFormer's layers), unless tasks share no stream at all.

    Args:
        base: the frozen linear.
        adapters: of each task.
        whole_change: on a shared input a task's own stream meets W'_t - W, in place of the low-rank product alone.
        task_dropout: each task's input is dropped, by a mask of its own (FAAR's released code).
    """

    drop_own_streams = False
    """Of an ensemble, where there are no others."""

    def __init__(
        self,
        base: nn.Linear,
        adapters: Mapping[str, Adapter],
        *,
        whole_change: bool = False,
        task_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = nn.ModuleDict(adapters)
        self.whole_change, self.task_dropout = whole_change, task_dropout

    def __len__(self) -> int:
        """How many tasks."""
        return len(self.adapters)

    def forward(self, x: Tensor) -> Tensor:
        """(S, ..., I) -> (T, ..., O); S is 1 where all tasks still share a stream, else T."""
        drop = len(x) == 1 or self.drop_own_streams or self.task_dropout
        return adapted(self.base, self._of_tasks(), x, drop=drop, apart=self.task_dropout)

    def with_shared(self, shared: nn.Module, x: Tensor) -> Tensor:
        """The shared linear's stream first, (S, ..., I) -> (1 + T, ..., O); S is 1 or 1 + T."""
        tasks = self._of_tasks()
        if (len(x) > 1 or self.task_dropout) and dropout_of(tasks):
            own = adapted(self.base, tasks, x[-len(tasks) :], drop=self.task_dropout, apart=True)
            return torch.cat([shared(x[0])[None], own])
        return adapted(self.base, [_adapter_of(shared), *tasks], x, drop=True)

    def on_shared_input(self, shared: nn.Module | None, x: Tensor) -> Tensor:
        """MTLoRA's path, where W sees the shared stream x_0 only: (S, ..., I) -> (K, ..., O).

        `shared` is the shared linear where its own output is wanted, first; else None.
        """
        n_on_shared, tasks = [] if shared is None else [_adapter_of(shared)], self._of_tasks()
        if self.whole_change and not all(_is_lora(adapter) for adapter in tasks):
            return self._changes_on_shared_input(shared, x)
        if self.task_dropout and dropout_of(tasks):
            own = adapted_on_shared_input(self.base, tasks, torch.cat([x[:1], self._dropped_apart(x)]), 0)
            return own if shared is None else torch.cat([shared(x[0])[None], own])
        if not dropout_of(tasks):
            return adapted_on_shared_input(self.base, [*n_on_shared, *tasks], x, len(n_on_shared))
        if len(x) == 1:
            return adapted(self.base, [*n_on_shared, *tasks], x, drop=True)
        if shared is None:
            return adapted_on_shared_input(self.base, tasks, x, 0)
        if all(adapter is not None and _is_lora(adapter) for adapter in (*n_on_shared, *tasks)):
            streams = torch.cat([x[:1], F.dropout(x[:1], dropout_of(tasks)), x[1:]])  # W x_0 serves all outputs
            return adapted_on_shared_input(self.base, [*n_on_shared, *tasks], streams, 0)
        return torch.cat([shared(x[0])[None], adapted_on_shared_input(self.base, tasks, x, 0)])

    def _changes_on_shared_input(self, shared: nn.Module | None, x: Tensor) -> Tensor:
        """y_t = W x_0 + b + (W'_t - W) x_t."""
        tasks = self._of_tasks()
        rate = dropout_of(tasks)
        if rate and len(x) == 1 and not self.task_dropout:
            adapters = tasks if shared is None else [_adapter_of(shared), *tasks]
            return changed(self.base, adapters, x[0], F.dropout(x, rate))
        streams = self._dropped_apart(x) if rate and self.task_dropout else x[-len(tasks) :]
        own = changed(self.base, tasks, x[0], streams)
        return own if shared is None else torch.cat([shared(x[0])[None], own])

    def _dropped_apart(self, x: Tensor) -> Tensor:
        """d(x_t) of every task, (T, ..., I), each by its own mask."""
        tasks = self._of_tasks()
        return F.dropout(x[-len(tasks) :].expand(len(tasks), *x.shape[1:]), dropout_of(tasks))

    def of_tasks(self) -> Iterator[tuple[str, Adapter]]:
        """Each task and its adapter."""
        for task, adapter in self.adapters.items():
            assert isinstance(adapter, Adapter)
            yield task, adapter

    def _of_tasks(self) -> list[Adapter]:
        return [adapter for _, adapter in self.of_tasks()]


def _adapter_of(linear: nn.Module) -> Adapter | None:
    """Of an adapted linear; a plain one has none."""
    return linear.adapter if isinstance(linear, AdaptedLinear) else None


def dropout_of(adapters: Sequence[Adapter | None]) -> float:
    """The share of their inputs that these adapters drop now; 0 in evaluation."""
    return max((a.dropout for a in adapters if a is not None and a.training), default=0.0)


def _is_lora(adapter: Adapter) -> bool:
    """Whether the change is s B A alone, whose product needs no product with W."""
    update = adapter.low_rank_update()
    return update is not None and update.m_O is None


def adapted(
    base: nn.Linear, adapters: Sequence[Adapter | None], x: Tensor, *, drop: bool = False, apart: bool = False
) -> Tensor:
    """y_k = W'_k x_k + b, (S, ..., I) -> (K, ..., O); None stands for the frozen weight.

    With `drop`, and in training, the change sees dropped inputs and the frozen weight whole ones (MTLoRA's LoRA, HF
    PEFT's DoRA, FAAR's release): y_k = W x_k + b + (W'_k - W) d(x_k), one mask for all k that share a stream, or with
    `apart` one for each. An adapter that `drops_whole_input` gives y_k = W'_k d(x_k) + b.
    """
    rate = dropout_of(adapters) if drop else 0.0
    if rate and apart:
        x = x.expand(len(adapters), *x.shape[1:])
    dropped = F.dropout(x, rate) if rate else None
    updates = [None if adapter is None else adapter.low_rank_update() for adapter in adapters]
    if torch.compiler.is_compiling() or any(
        a is not None and c is None for a, c in zip(adapters, updates, strict=True)
    ):
        return adapted_plainly(base, adapters, x, dropped)
    x_SNI = x.flatten(1, -2)
    if dropped is None:
        y_KNO = merged_products(x_SNI, base.weight, base.bias, updates)
    else:
        y_KNO = dropped_products(x_SNI, dropped.flatten(1, -2), base.weight, base.bias, updates)
    return y_KNO.view(len(adapters), *x.shape[1:-1], -1)


def adapted_plainly(
    base: nn.Linear, adapters: Sequence[Adapter | None], x: Tensor, dropped: Tensor | None = None
) -> Tensor:
    """The same in plain autograd, d(x) given: what `torch.compile` sees, and the reference."""
    outputs: list[Tensor] = []
    for k, adapter in enumerate(adapters):
        stream = k if len(x) > 1 else 0
        with torch.autocast(x.device.type, enabled=False):  # the update is small beside W: no bf16 sum
            weight = base.weight if adapter is None else adapter.adapt(base.weight)
        if dropped is None or adapter is None:
            outputs.append(F.linear(x[stream], weight, base.bias))
        elif adapter.drops_whole_input:
            outputs.append(F.linear(dropped[stream], weight, base.bias))
        else:
            change = F.linear(dropped[stream], weight - base.weight)
            outputs.append(F.linear(x[stream], base.weight, base.bias) + change)
    return torch.stack(outputs)


def changed(base: nn.Linear, adapters: Sequence[Adapter | None], x_0: Tensor, x: Tensor) -> Tensor:
    """y_k = W x_0 + b + (W'_k - W) x_k, (S, ..., I) -> (K, ..., O), in plain autograd; S is 1 or K."""
    frozen = F.linear(x_0, base.weight, base.bias)
    outputs: list[Tensor] = []
    for k, adapter in enumerate(adapters):
        if adapter is None:
            outputs.append(frozen)
            continue
        with torch.autocast(x.device.type, enabled=False):
            change = adapter.adapt(base.weight) - base.weight
        outputs.append(frozen + F.linear(x[k if len(x) > 1 else 0], change))
    return torch.stack(outputs)


def adapted_on_shared_input(base: nn.Linear, adapters: Sequence[Adapter | None], x: Tensor, n_on_shared: int) -> Tensor:
    """y_k = c_k (W x_0 + s B_k A_k x_k) + b, (S, ..., I) -> (K, ..., O): W sees the shared stream x_0 only (MTLoRA).

    The first `n_on_shared` (0 or 1) outputs are of the shared stream; S is 1, or 1 + the number of the others.
    """
    updates = [None if adapter is None else adapter.low_rank_update() for adapter in adapters]
    if any(c is None for c in updates[n_on_shared:]):
        raise TypeError("placement.task_path shared needs LoRA or DoRA on task-specific layers")
    if torch.compiler.is_compiling():
        return _on_shared_input_plainly(base, adapters, x, n_on_shared)
    y_KNO = shared_input_products(x.flatten(1, -2), n_on_shared, base.weight, base.bias, updates)
    return y_KNO.view(len(adapters), *x.shape[1:-1], -1)


def _on_shared_input_plainly(
    base: nn.Linear, adapters: Sequence[Adapter | None], x: Tensor, n_on_shared: int
) -> Tensor:
    P = F.linear(x[0], base.weight)
    outputs = []
    for k, adapter in enumerate(adapters):
        x_k = x[0] if len(x) == 1 or k < n_on_shared else x[1 + k - n_on_shared]
        y = P if adapter is None else adapter.adapt_product(base.weight, P, x_k)
        outputs.append(y if base.bias is None else y + base.bias)
    return torch.stack(outputs)
