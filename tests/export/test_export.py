"""What leaves a trial: the same predictions from every file, ranks that PEFT takes, errors that say what is wrong."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from faar_ray.adapters import DoRA
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.export.__main__ import main
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.merged_file import read_merged
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import MultiTaskModel, adapter_list, build_model, micro
from faar_ray.predict import main as predict

TASKS = ("semseg", "normals")
Trial = tuple[Path, MultiTaskModel, TrialConfig]


def make_trial(folder: Path, **dotted: object) -> Trial:
    """A trial's folder as training leaves it: adapters moved and shrunk."""
    raw = {"backbone": {"pretrained": False}, "ranks": {"init_rank": 4}, "data": {"tasks": TASKS}}
    config = TrialConfig.resolve(raw, **dotted)
    model = build_model(config).eval()
    torch.manual_seed(0)
    for i, adapter in enumerate(adapter_list(model)):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    write_adapter(folder / "adapter.safetensors", model, config)
    return folder, model, config


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.chdir(tmp_path)
    return make_trial(tmp_path / "runs" / "rho" / "trials" / "t000-s0")


def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_an_exported_adapter_gives_the_trained_model_back(trial: Trial, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert main(["rho/t000-s0", "--adapter", "--out", str(out)]) == 0
    written = out.stat().st_mtime_ns
    assert main(["rho/t000-s0", "--rank-pattern", "--out", str(out)]) == 2
    assert out.stat().st_mtime_ns == written
    again = load_model(read_adapter_file(out), out)
    assert [a.rank for a in adapter_list(again)] == [a.rank for a in adapter_list(trial[1])]
    for task, predicted in again(image()).items():
        torch.testing.assert_close(predicted, trial[1](image())[task])


@torch.no_grad()
def test_a_merged_file_needs_nothing_else_and_predicts_the_same(trial: Trial, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    assert main([str(trial[0]), "--merge", "semseg", "--out", str(out)]) == 0
    merged = read_merged(out)
    assert adapter_list(merged) == []
    torch.testing.assert_close(merged(image())["semseg"], trial[1](image())["semseg"], rtol=1e-5, atol=1e-5)
    with safe_open(out, framework="pt") as file:
        assert not [name for name in file.keys() if "A_RI" in name]  # noqa: SIM118


def test_the_ranks_of_a_trial_are_a_config_that_trains_them_from_their_start(trial: Trial, tmp_path: Path) -> None:
    out = tmp_path / "ranks.yaml"
    assert main([str(trial[0]), "--ranks", "--out", str(out)]) == 0
    found = TrialConfig.resolve(yaml.safe_load(out.read_text())).ranks
    assert found.pattern == {adapter.site.place: adapter.rank for adapter in adapter_list(trial[1])}


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is optional")
@pytest.mark.parametrize("task", [None, "normals"])
def test_peft_builds_adapters_of_the_exported_ranks_and_scale(trial: Trial, tmp_path: Path, task: str | None) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    out = tmp_path / "ranks.yaml"
    assert main([str(trial[0]), "--rank-pattern", "--out", str(out), *(["--task", task] if task else [])]) == 0
    bare = build_model(TrialConfig.resolve({"method": "decoder_only", "backbone": {"pretrained": False}})).backbone
    result = inject_adapter_in_model(LoraConfig(**yaml.safe_load(out.read_text())), bare)
    checked = 0
    for adapter in adapter_list(trial[1]):
        site = adapter.site
        if site.task == task or (task is None and site.shared):
            parent = "attn" if site.layer in ("qkv", "proj") else "mlp"
            linear = getattr(getattr(result.layers[site.stage].blocks[site.block], parent), site.layer)
            assert linear.lora_A["default"].weight.shape == adapter.A_RI.shape
            assert linear.scaling["default"] == adapter.scale
            assert linear.use_dora["default"] == isinstance(adapter, DoRA)
            checked += 1
    assert checked == sum(a.site.task == (task or "shared") for a in adapter_list(trial[1]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rho/t009-s0", "--adapter"], "finished ones under runs: rho/t000-s0"),
        (["rho/t000-s0", "--merge", "depth"], "must be one of semseg, normals, got 'depth'"),
        (["rho/t000-s0", "--rank-pattern", "--task", "edge"], "must be one of semseg, normals, got 'edge'"),
        (["0" * 32, "--adapter"], "is not known"),
    ],
)
def test_what_cannot_be_exported_is_an_error_that_says_why(
    trial: Trial, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", "x"]) == 2
    assert says in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_shared_task_path_is_refused_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, *_ = make_trial(tmp_path / "t", **{"placement.task_path": "shared"})
    assert main([str(folder), "--merge", "semseg", "--out", str(tmp_path / "x")]) == 2
    assert "shared cannot be merged" in capsys.readouterr().err


def test_a_damaged_file_is_named(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    path = trial[0] / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["rho/t000-s0", "--adapter", "--out", "x"]) == 2
    assert f"{path.relative_to(Path.cwd())}: cannot be read" in capsys.readouterr().err


def test_a_flipped_bit_of_a_weight_is_noticed(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    path = trial[0] / "adapter.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) - 100] ^= 0x10
    path.write_bytes(raw)
    assert main(["rho/t000-s0", "--rank-pattern", "--out", "p.yaml"]) == 2
    assert "adapter.safetensors: damaged" in capsys.readouterr().err


def test_two_merges_in_one_command_are_refused(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["rho/t000-s0", "--merge", "semseg", "--merge", "normals", "--out", "x"])
    assert end.value.code == 2
    assert "--merge: given twice" in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.fixture
def trained_on_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a trial whose backbone has the weights of `w.pth`."""
    monkeypatch.chdir(tmp_path)
    save_weights("w.pth", seed=1)
    folder, *_ = make_trial(tmp_path / "t", **{"backbone.checkpoint": "w.pth"})
    Image.new("RGB", (64, 64)).save("street.png")
    return folder


def save_weights(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(micro.architecture().state_dict(), name)


def both_commands(folder: Path, *more: str) -> list[int]:
    """Exit codes of `predict` and `export --merge`."""
    return [
        predict([str(folder), "street.png", "--out", "pictures", *more]),
        main([str(folder), "--merge", "semseg", "--out", "m.safetensors", *more]),
    ]


def test_weights_that_were_replaced_are_refused(trained_on_a_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights("w.pth", seed=2)
    assert both_commands(trained_on_a_file) == [2, 2]
    for line in capsys.readouterr().err.splitlines():
        assert "was trained on other weights of the backbone (sha256 " in line
        assert "w.pth has others (sha256 " in line
        assert line.endswith("by --checkpoint FILE")
    assert not Path("pictures").exists()
    assert not Path("m.safetensors").exists()


def test_the_same_weights_in_a_moved_and_converted_file_are_named_anew(
    trained_on_a_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load("w.pth", weights_only=True)
    Path("w.pth").unlink()
    assert both_commands(trained_on_a_file) == [2, 2]
    assert capsys.readouterr().err.count("backbone.checkpoint: w.pth is gone; name the file") == 2

    save_file({f"module.{name}": value for name, value in state.items()}, "moved.safetensors")
    assert both_commands(trained_on_a_file, "--checkpoint", "moved.safetensors") == [0, 0]


def test_a_file_of_weights_is_not_taken_where_the_backbone_had_none(
    trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights("w.pth", seed=1)
    assert main(["rho/t000-s0", "--merge", "semseg", "--checkpoint", "w.pth", "--out", "x"]) == 2
    assert "was trained on the backbone as it is initialised" in capsys.readouterr().err
    assert main(["rho/t000-s0", "--adapter", "--checkpoint", "w.pth", "--out", "x"]) == 2
    assert "--checkpoint: only --merge" in capsys.readouterr().err


def test_an_adapter_file_of_an_older_version_is_read_without_the_check(trained_on_a_file: Path) -> None:
    file = read_adapter_file(trained_on_a_file / "adapter.safetensors")
    assert len(file.weights_digest) == 64
    save_weights("w.pth", seed=2)
    load_model(replace(file, weights_digest=""), trained_on_a_file)
    with pytest.raises(DataError, match="other weights"):
        load_model(file, trained_on_a_file)
