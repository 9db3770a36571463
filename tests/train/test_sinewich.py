"""Free Sinewich and the hybrid through the one loop: traces, resume, accumulation, gradients of tasks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from faar_ray.adapters import SineBase
from faar_ray.adapters.sinewich.sine_measure import mean_cosines
from faar_ray.config.trial import TrialConfig
from faar_ray.data import DenseDataset
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.files.sine_trace import read_sine_trace
from faar_ray.train.checkpoint import checkpoint_path, read_checkpoint
from faar_ray.train.fit import fit
from faar_ray.train.gradients.cosines import IMAGES, gradient_cosines
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

SMALL: dict[str, Any] = {
    "method": "faar_sinewich",
    "data": {"train_images": 48, "val_images": 24, "test_images": 24, "image_size": 32},
    "backbone": {"drop_path": 0.2, "pretrained": False},
    "sinewich": {"gradient_cosine_every": 2},
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.7, "beta": 0.9},
    "optim": {"epochs": 3, "batch_size": 16, "lr": 5e-3, "decoder_lr": 6e-3, "warmup_steps": 2},
}


def run(folder: Path, epochs: int | None = None, **dotted: Any) -> list[EpochRecord]:
    config = TrialConfig.resolve(SMALL, **dotted)
    return list(islice(fit(TrialSpec("t", config, RunLocation(folder))), epochs))


def timeless(records: list[EpochRecord]) -> list[Any]:
    return [
        ({k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}, r.ranks, r.sines) for r in records
    ]  # fmt: skip


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[EpochRecord]]:
    folder = tmp_path_factory.mktemp("hybrid")
    return folder, run(folder)


def test_pdrs_shrinks_shared_lora_and_bases_and_the_trace_holds_both(hybrid: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = hybrid
    rows = read_rank_trace(TrialPaths(folder, "t").trace).to_pylist()
    assert len(rows) == 3 * len(records[0].ranks)
    of_bases = [row for row in rows if row["layer"].endswith("_awb")]
    assert {row["layer"] for row in of_bases} == {"proj_awb", "fc1_awb", "fc2_awb"}
    for kind in (of_bases, [row for row in rows if row not in of_bases]):
        first, last = ([row["rank"] for row in kind if row["epoch"] == epoch] for epoch in (0, 2))
        assert min(last) >= 1 and sum(last) < sum(first)
        assert all(len(row["importance"]) == row["rank_before"] for row in kind)
    base = next(row for row in of_bases if row["epoch"] == 2 and row["layer"] == "fc1_awb" and row["stage"] == 0)
    assert base["params"] == base["rank"] * (24 + 96) + base["rank"] ** 2


def test_the_sine_trace_is_what_the_epochs_say(hybrid: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = hybrid
    rows = read_sine_trace(TrialPaths(folder, "t").sines).to_pylist()
    assert len(rows) == 3 * (4 * 3 + 1) * 3  # epochs, layers with the decoder's base, tasks
    assert {row["stage"] for row in rows} == {0, 1, 2, 3, 4}
    measured = {row["epoch"] for row in rows if row["gradient_cosine"] is not None}
    assert measured == {1, 2}
    metrics = records[-1].metrics
    for task in ("semseg", "human_parts", "normals"):
        assert metrics[f"clock/omega/{task}"] == pytest.approx(
            next(row["omega"] for row in rows if row["epoch"] == 2 and row["task"] == task)
        )
    last = [row for row in rows if row["epoch"] == 2]
    assert metrics["sine/cosine"] == pytest.approx(sum(row["cosine"] for row in last) / len(last))
    assert {"sine/effective_rank", "sine/omega_std/mean", "sine/gradient_cosine"} <= metrics.keys()


def test_a_resumed_hybrid_equals_an_uninterrupted_one(hybrid: tuple[Path, list[EpochRecord]], tmp_path: Path) -> None:
    folder, records = hybrid
    run(tmp_path, epochs=1)
    torch.rand(7)
    assert timeless(run(tmp_path)) == timeless(records)
    ours, theirs = (read_checkpoint(checkpoint_path(f / "trials" / "t", 2))["model"] for f in (tmp_path, folder))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_the_adapter_file_builds_the_trained_model(hybrid: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = hybrid
    trial = TrialPaths(folder, "t")
    file = read_adapter_file(trial.adapter)
    model = load_model(file, trial.adapter)
    ranks = {m.site: m.rank for m in model.modules() if isinstance(m, SineBase)}
    recorded = {(r.stage, r.layer): r.rank for r in records[-1].ranks if r.layer.endswith("_awb")}
    assert {(site.stage, site.layer): rank for site, rank in ranks.items()} == recorded
    trained = Trial(TrialConfig.resolve(SMALL), InProcess("cpu"))
    trained.restore(read_checkpoint(checkpoint_path(trial.folder, 2)))
    image = torch.randn(1, 3, 32, 32)
    for task, prediction in trained.model.eval()(image).items():
        torch.testing.assert_close(model(image)[task], prediction)


@pytest.mark.slow
@pytest.mark.nightly
def test_with_the_default_clock_tasks_end_with_weights_of_their_own(tmp_path: Path) -> None:
    """The search space's own setting, on the embedded data, nothing of sinewich set but its defaults."""
    base = yaml.safe_load((Path(__file__).parents[2] / "search_spaces" / "sinewich.yaml").read_text())["base"]
    config = TrialConfig.resolve(base)
    assert config.sinewich == TrialConfig().sinewich and config.sinewich.blur_size == 7
    last = list(fit(TrialSpec("t", config, RunLocation(tmp_path))))[-1]
    of_backbone = [row.cosine for row in last.sines if row.stage < 4 and row.cosine is not None]
    assert len(of_backbone) == 4 * 3 * 3
    assert sum(of_backbone) / len(of_backbone) < 0.9


def trial(**dotted: Any) -> Trial:
    made = Trial(TrialConfig.resolve(SMALL, **{"backbone.drop_path": 0.0, **dotted}), InProcess("cpu"))
    torch.manual_seed(3)
    with torch.no_grad():
        for adapter in made.adapters:
            adapter.B_RO.normal_(std=0.05)
    made.model.train()
    return made


def test_a_step_in_parts_computes_each_base_once_and_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch statistics are those of a part, so normalisation is held still here."""
    result: list[dict[str, Tensor]] = []
    calls: list[SineBase] = []
    was = SineBase.matrix

    def counted(base: SineBase) -> Tensor:
        calls.append(base)
        return was(base)

    monkeypatch.setattr(SineBase, "matrix", counted)
    for parts in (1, 3):
        made = trial(**{"optim.accumulate": parts, "optim.precision": "fp64"})
        made.model.eval()
        batch = dict(next(iter(made.train_data.batches(batch_size=16, seed=0, epoch=0, train=True))))
        gradients: dict[str, Tensor] = {}
        monkeypatch.setattr("faar_ray.train.step.update", lambda t, step, losses_T, g=gradients: g.update(grads_of(t)))
        made.policy.sample_mask(0, 0)
        calls.clear()
        train_step(made, batch, 0)
        assert len(calls) == 4 * 3
        result.append(gradients)
    assert len(result[0]) > 50
    for name, expected in result[0].items():
        torch.testing.assert_close(result[1][name], expected, rtol=1e-9, atol=1e-12)


def grads_of(made: Trial) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}


def test_gradient_cosines_are_those_of_each_tasks_own_backward_pass() -> None:
    made = trial(**{"optim.precision": "fp64"})
    state, before = torch.get_rng_state(), {n: b.clone() for n, b in made.model.named_buffers()}
    result = gradient_cosines(made)
    assert torch.equal(torch.get_rng_state(), state) and made.model.training
    assert all(torch.equal(b, before[n]) for n, b in made.model.named_buffers())
    assert all(p.grad is None for p in made.model.parameters())
    assert len(result) == 4 * 3 + 1

    made.model.eval()
    batch = dict(next(iter(made.val_data.batches(batch_size=IMAGES, seed=0, epoch=0, train=False))))
    layer = made.sines[0]
    vectors = []
    for task in made.config.data.tasks:
        made.model.zero_grad()
        label = batch[task].double() if batch[task].is_floating_point() else batch[task]
        made.tasks[task].loss(made.model(batch["image"].double())[task], label).backward()
        vectors.append(torch.cat([p.grad.flatten() for p in layer.bases.parameters()]))
    assert result[layer] == pytest.approx(mean_cosines(torch.stack(vectors)))


def test_a_task_without_a_label_has_no_gradient_cosine_and_is_no_other_tasks() -> None:
    made, other = trial(), trial()
    assert isinstance(made.val_data, DenseDataset)
    made.val_data.stored["normals"][:] = 0
    result, layer = gradient_cosines(made), made.sines[0]
    tasks = made.config.data.tasks
    assert [task for task, value in zip(tasks, result[layer], strict=True) if value is None] == ["normals"]

    expected = gradient_cosines(other)[other.sines[0]]
    assert None not in expected
    first, second = (value for value in result[layer] if value is not None)
    assert first == pytest.approx(second)  # of two tasks, each is the other's only one


def test_where_no_base_is_shared_there_is_no_gradient_cosine() -> None:
    assert gradient_cosines(trial(**{"sinewich.base": "independent"})) == {}
    assert gradient_cosines(trial(**{"data.tasks": ["normals"], "decoder.xt_cons": False})) == {}
