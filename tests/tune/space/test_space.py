from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faar_ray.config.data_section import DataConfig
from faar_ray.config.task_definitions import METRICS, TYPES
from faar_ray.errors import ConfigError
from faar_ray.objectives.metrics import goal_of
from faar_ray.tasks import tasks_of
from faar_ray.tune.space.space import SearchSpace, read_space

SHIPPED = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
SMALL = """\
version: 1
name: small
base:
  ranks: {init_rank: 16}
parameters:
  pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}
objectives:
  - {name: delta_m, goal: maximize}
  - {name: trainable_params, goal: minimize}
"""
CONTRACT = """\
version: 1
name: rho
base:
  method: faar
  data: {name: scenes, tasks: [semseg, human_parts, saliency, normals, depth]}
  seed: 0
  backbone: {name: swin_micro, pretrained: true}
  ranks: {init_rank: 16}
  pdrs: {beta: 0.98}
  optim: {epochs: 8, lr: 5.0e-4}
parameters:
  pdrs.rho_shared: {min: 0.5, max: 0.995, scale: log1m, prior: 0.95}
  pdrs.rho_task:   {min: 0.5, max: 0.995, scale: log1m, prior: 0.95}
  ranks.init_rank:  {values: [8, 16, 32]}
objectives:
  - {name: delta_m, goal: maximize}
  - {name: trainable_params, goal: minimize}
references: auto
constraints: ["trainable_params <= 4.0e6"]
search: {sampler: tpe, seed: 0, startup_trials: 4}
scheduler: {type: asha, metric: delta_m, min_epochs: 2, reduction: 3}
budget: {trials: 8, time: 10m, gpu_hours: null, usd: null}
warm_start: {points: [{pdrs.rho_shared: 0.9}], from: null}
resources: {workers: 1, cpus_per_worker: 1, gpus_per_worker: 0, max_concurrent: auto}
failure: {max_retries: 2, max_failures: 5}
storage: {path: ./runs, keep_checkpoints: 2}
tracking: {uri: "sqlite:///mlflow.db", experiment: rho}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str, *overrides: str) -> list[str]:
    """What reading the space says, the folder's name taken off."""
    with pytest.raises(ConfigError) as error:
        read_space(written(folder, text), overrides)
    return [fault.removeprefix(f"{folder}/") for fault in error.value.faults]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_spaces_are_valid(path: Path) -> None:
    assert read_space(path).name == path.stem


def test_a_front_of_what_no_epoch_reports_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace("name: trainable_params", "name: test/delta_m") + "scheduler: {metric: front}\n"
    (message,) = faults(tmp_path, text)
    assert "no metric of these tasks is called 'test/delta_m'" in message


def test_a_budget_of_money_needs_a_price_and_one_of_gpus_a_gpu(tmp_path: Path) -> None:
    text = SMALL + "budget: {gpu_hours: 1.5, usd: 3}\nresources: {gpus_per_worker: 0.25, usd_per_hour: 2}\n"
    assert read_space(written(tmp_path, text)).budget.gpu_hours == 1.5
    both = faults(tmp_path, text, "resources={}")
    assert [fault.partition(": must")[0] for fault in both] == [
        "a.yaml:10:10: budget.gpu_hours",
        "a.yaml:10:26: budget.usd",
    ]


def test_the_contract_s_example_is_read_whole(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, CONTRACT))
    assert space.trial_config({}).optim.lr == 5e-4
    assert space.parameters["pdrs.rho_task"].bounds == (0.5, 0.995)
    assert space.budget.seconds == 600
    assert space.limits[0].excess({"trainable_params": 5e6}) == 1e6


CONDITIONAL = """\
  sinewich.sigma:  {min: 0.5, max: 2.0, log: true, when: {method: free_sinewich, sinewich.blur_size: [3, 5, 7, 9]}}
"""


def test_the_contract_s_condition_is_taken_where_its_method_is_searched_and_refused_with_the_reason_elsewhere(
    tmp_path: Path,
) -> None:
    text = CONTRACT.replace("objectives:", CONDITIONAL + "objectives:")
    (message,) = faults(tmp_path, text)
    assert message == ("a.yaml:15:59: sinewich.sigma.when.method: is never 'free_sinewich' in this search, but 'faar'")
    searched = text.replace("objectives:", "  method: {values: [faar, free_sinewich]}\nobjectives:")
    space = read_space(written(tmp_path, searched))
    point = {"method": "free_sinewich", "sinewich.sigma": 2.0}
    assert space.trial_config(point).sinewich.sigma == 2.0


def test_a_space_survives_being_written_and_read(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, CONTRACT))
    again = read_space(written(tmp_path, yaml.safe_dump(space.model_dump(mode="json"))))
    assert again == space


def test_all_faults_are_told_at_once_in_the_file_s_order(tmp_path: Path) -> None:
    text = """\
version: 1
name: a/b
base:
  pdrs: {bata: 3, rho_task: 1.2}
  data: {image_size: abc}
parameters:
  pdrs.rho_shared: {min: 0.5, max: 1.2}
  pdrs.rho_shard: {min: 0.1, max: 0.5}
  pdrs.margin: {max: 2}
objectives:
  - {name: delta_mm, goal: maximise}
search: {sampler: tpa}
pramaeters: 1
"""
    words = "a folder's name: letters, digits, '.', '_' and '-', at most 100"
    assert faults(tmp_path, text) == [
        f"a.yaml:2:1: name: must be {words}, got 'a/b'",
        "a.yaml:4:10: pdrs.bata: unknown key (did you mean 'beta'?)",
        "a.yaml:4:19: pdrs.rho_task: must satisfy 0 < rho <= 1, got 1.2",
        "a.yaml:5:10: data.image_size: must be an integer or a list, got 'abc'",
        "a.yaml:7:3: pdrs.rho_shared: must satisfy 0 < rho <= 1, got 1.2",
        "a.yaml:8:3: pdrs.rho_shard: unknown key (did you mean 'pdrs.rho_shared'?)",
        "a.yaml:9:3: pdrs.margin: needs min and max, or values: min missing",
        "a.yaml:11:6: objectives.0.name: no metric of these tasks is called 'delta_mm' (did you mean 'delta_m'?)",
        "a.yaml:11:22: objectives.0.goal: must be one of maximize, minimize, got 'maximise' (did you mean 'maximize'?)",
        "a.yaml:12:10: search.sampler: must be one of tpe, nsga2, gp, cmaes, random, qmc, grid, points, got 'tpa' "
        "(did you mean 'tpe'?)",
        "a.yaml:13:1: pramaeters: unknown key (did you mean 'parameters'?)",
    ]


def test_a_bound_on_its_own_line_is_found_there(tmp_path: Path) -> None:
    text = SMALL + "constraints: []\n"
    text = text.replace("  pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}\n", "")
    text = text.replace("parameters:\n", "parameters:\n  pdrs.beta:\n    min: 0.5\n    max: 2\n")
    assert faults(tmp_path, text) == ["a.yaml:8:5: pdrs.beta: must satisfy 0 <= beta < 1, got 2"]


def parameter(key: str, words: str) -> str:
    line = "pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}"
    return SMALL.replace(line, f"{key}: {words}")


@pytest.mark.parametrize(
    ("key", "words", "rule"),
    [
        ("pdrs.beta", "{min: 0.9, max: 0.1}", "must satisfy min < max, got 0.9 and 0.1"),
        ("pdrs.beta", "{min: 0.9, max: 0.9}", "must satisfy min < max, got 0.9 and 0.9"),
        ("sinewich.offset", "{min: -1e308, max: 1e308}", "must be so near to min that max - min is finite, got 1e+308"),
        ("pdrs.beta", "{}", "needs min and max, or values: min and max missing"),
        ("pdrs.beta", "3", "must be a mapping of keys to values, got 3"),
        ("pdrs.beta", "{min: 0, max: 0.5, values: [0.1]}", "must not stand beside min or max: give a range or a list"),
        ("pdrs.beta", "{values: []}", "must be a list of 1 to 256 or null, got []"),
        ("pdrs.beta", "{values: [0.1, 0.1]}", "must not repeat, got 0.1 again"),
        ("pdrs.beta", "{values: [0.1, x]}", "must be a number, got 'x'"),
        ("pdrs.beta", "{values: [0.1, 2]}", "must satisfy 0 <= beta < 1, got 2"),
        ("pdrs.beta", "{values: [0.1, 0.2], log: true}", "must be false for a list of values, got true"),
        ("pdrs.beta", "{values: [0.1, 0.2], scale: log1m}", "must be linear for a list of values, got 'log1m'"),
        ("pdrs.beta", "{min: 0, max: 0.5, log: true}", "must satisfy min > 0 where log is true, got 0"),
        ("pdrs.rho_shared", "{min: 0.5, max: 1, scale: log1m}", "must satisfy max < 1 where scale is log1m, got 1"),
        ("pdrs.beta", "{min: 0.1, max: 0.5, scale: log1m, log: true}", "must be false where scale is log1m, got true"),
        ("pdrs.beta", "{min: 0.1, max: 0.5, scale: log}", "must be one of linear, log1m, got 'log'"),
        ("pdrs.beta", "{min: 0.1, max: 0.5, prior: 0.7}", "must lie within 0.1 .. 0.5, got 0.7"),
        ("pdrs.beta", "{values: [0.1, 0.2], prior: 0.3}", "must lie within [0.1, 0.2], got 0.3"),
        ("pdrs.beta", "{min: 0.1, max: 0.5, stride: 0.1}", "unknown key"),
        ("pdrs.beta", "{min: 0.1, max: .inf}", "must be finite, got inf"),
        (
            "ranks.init_rank",
            "{min: 2.5, max: 8}",
            "must be an integer or a mapping of the stages 0, 1, 2, 3 to numbers, got 2.5",
        ),
        ("ranks.init_rank", "{min: 2, max: 8, prior: 2.5}", "must be an integer, got 2.5"),
        ("ranks.init_rank", "{min: 0, max: 8}", "must satisfy init_rank >= 1, got 0"),
        (
            "adapter.kind",
            "{values: [lora, doro]}",
            "must be one of none, lora, dora, sine_awb, spectrum, got 'doro' (did you mean 'dora'?)",
        ),
        ("pdrs.scope", "{min: 1, max: 2}", "must be one of adapter, pooled, got 1"),
        ("pdrs.start_epoch", "{min: 0, max: 6}", "must be below optim.epochs - pdrs.free_epochs = 6"),
        ("pdrs.rho", "{values: [0.1]}", "unknown key (did you mean"),
        ("pdrs", "{values: [0.1]}", "unknown key"),
        ("seed", "{values: [1, 2]}", "seeds are not searched"),
        ("sinewich.blur_size", "{values: [3, 4]}", "must be odd, so that the filter has a middle, got 4"),
        ("sinewich.blur", "{values: [matrix, kernel]}", "must be matrix or none where sinewich.conv_size is 1"),
    ],
)
def test_a_parameter_that_cannot_be_sampled_is_refused(tmp_path: Path, key: str, words: str, rule: str) -> None:
    message = faults(tmp_path, parameter(key, words))
    assert rule in message[0]
    assert all(fault.startswith("a.yaml:6:") for fault in message)
    assert len(message) <= 2  # one at each bound


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ("references: atuo", "must be auto or a mapping of keys to values, got 'atuo' (did you mean 'auto'?)"),
        ("references: {semseg: 50.0, normals: 20}", "must have a number for every task, missing human_parts"),
        ("references: {semseg: 5, normals: 2, human_parts: 4, depth: 1}", "references.depth: unknown key"),
        ("references: {semseg: 0, normals: 20, human_parts: 4}", "must satisfy semseg > 0, got 0"),
        ("controls: [{method: lara}]", "controls.0.method: must be one of"),
        ("controls: [{pdrs.bata: 0.5}]", "controls.0.pdrs.bata: unknown key (did you mean 'pdrs.beta'?)"),
        ("controls: {method: dora}", "must be a list, got"),
        ("constraints: [trainable_params is small]", "must read `metric <= number`"),
        ("constraints: [trainable_params < 3]", "must read `metric <= number`"),
        ("constraints: [trainable_params <= many]", "must read `metric <= number`"),
        ("constraints: [trainable_param <= 3]", "did you mean 'trainable_params'?"),
        ("search: {replicates: {top: 5, seeds: 2}}", "must be >= search.replicates.top * seeds = 10, got 8"),
        ("search: {replicates: {seeds: 1}}", "must satisfy seeds >= 2, got 1"),
        ("scheduler: {metric: delta}", "must be delta_m, an objective or front, got 'delta' (did you mean 'delta_m'?)"),
        ("scheduler: {min_epochs: 7}", "must be <= optim.epochs = 6, got 7"),
        (
            "scheduler: {type: pbt, population: 4}",
            "scheduler.type: cannot be pbt for sampler tpe: only the first trials are sampled",
        ),
        (
            "scheduler: {type: ash}",
            "must be one of asha, hyperband, median, paired, none, pbt, got 'ash' (did you mean 'asha'?)",
        ),
        ("scheduler: {type: median, metric: front}", "scheduler.metric: must be delta_m or an objective where"),
        ("{scheduler: {metric: front}, objectives: [{name: delta_m, goal: maximize}]}", "where there is one objective"),
        ("scheduler: {min_trials: 0}", "must satisfy min_trials >= 1, got 0"),
        ("scheduler: {reduction: 1}", "must satisfy reduction >= 2, got 1"),
        ("budget: {time: 10 minutes}", "must be a time such as 90s, 10m or 2h, got '10 minutes'"),
        ("budget: {time: 600}", "must be a time such as 90s, 10m or 2h, got 600"),
        ("budget: {time: 0s}", "must be above zero, got '0s'"),
        ("budget: {trials: 0}", "must satisfy trials >= 1, got 0"),
        ("budget: {gpu_hours: 3}", "must be null where resources.gpus_per_worker is 0: no trial holds a GPU, got 3"),
        ("budget: {gpu_hours: 0}", "must satisfy gpu_hours > 0, got 0"),
        ("budget: {usd: 3}", "budget.usd: must be null where resources.usd_per_hour, the price of one trial's"),
        ("resources: {cluster: 3}", "must be text or null, got 3"),
        ("{budget: {usd: .inf}, resources: {usd_per_hour: 1}}", "budget.usd: must be finite, got inf"),
        ("resources: {usd_per_hour: -1}", "must satisfy usd_per_hour > 0, got -1"),
        ("warm_start: {from: 3}", "must be text or null, got 3"),
        ("warm_start: {points: [{pdrs.beta: 0.5}]}", "warm_start.points.0.pdrs.beta: must be one of parameters"),
        ("warm_start: {points: [{pdrs.rho_shared: 1}]}", "must lie within 0.3 .. 0.99, got 1"),
        ("resources: {workers: 0}", "must satisfy workers >= 1, got 0"),
        ("resources: {max_concurrent: all}", "must be auto or an integer, got 'all'"),
        ("tracking: {uri: ./mlruns}", "must be an MLflow database or server"),
        ("tracking: {uri: 'sqlite://x.db'}", "must be an MLflow database or server"),
        ("base: {method: free_sandwich}", "did you mean 'free_sinewich'?"),
        ("base: {pdrs.beta: 0.5}", "unknown key: write it nested, pdrs: {beta: ...}"),
        ("base: 3", "must be a mapping of keys to values, got 3"),
        ("version: 2", "must be 1, got 2"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(tmp_path: Path, section: str, rule: str) -> None:
    data = yaml.safe_load(SMALL) | yaml.safe_load(section)
    message = faults(tmp_path, yaml.safe_dump(data, sort_keys=False))
    assert len(message) == 1
    assert rule in message[0]


@pytest.mark.parametrize("key", ["version", "name", "parameters", "objectives"])
def test_what_a_space_cannot_do_without_is_asked_for(tmp_path: Path, key: str) -> None:
    data = yaml.safe_load(SMALL)
    del data[key]
    assert faults(tmp_path, yaml.safe_dump(data)) == [f"a.yaml:1:1: {key}: required key is missing"]


def test_overrides_reach_the_space_and_the_trial_config(tmp_path: Path) -> None:
    space = read_space(
        written(tmp_path, SMALL),
        [
            "budget.trials=3",
            "pdrs.beta=0.5",
            "base.seed=4",
            "parameters.pdrs.rho_shared.min=0.4",
            "objectives.1.name=rank/mean",
        ],
    )
    config = space.trial_config({})
    assert (space.budget.trials, config.pdrs.beta, config.ranks.init_rank, config.seed) == (3, 0.5, 16, 4)
    assert space.parameters["pdrs.rho_shared"].min == 0.4
    assert space.objectives[1].name == "rank/mean"


def test_a_bad_override_is_named_as_one_and_comes_last(tmp_path: Path) -> None:
    message = faults(
        tmp_path,
        SMALL + "extra: 1\n",
        "pdrs.beta=2",
        "budget={trials: 0}",
        "parameters.pdrs.bata={values: [1]}",
        "fo=1",
    )
    assert message == [
        "a.yaml:10:1: extra: unknown key",
        "command line: pdrs.beta=2: must satisfy 0 <= beta < 1, got 2",
        "command line: budget={trials: 0}: budget.trials: must satisfy trials >= 1, got 0",
        "command line: parameters.pdrs.bata={values: [1]}: unknown key (did you mean 'pdrs.beta'?)",
        "command line: fo=1: unknown key",
    ]


def test_a_range_has_its_key_s_type(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, parameter("pdrs.beta", "{min: 0, max: 0.5, prior: 0}")))
    assert space.parameters["pdrs.beta"].bounds == (0.0, 0.5)
    assert not space.parameters["pdrs.beta"].is_integer
    space = read_space(written(tmp_path, parameter("optim.weight_decay", "{min: 0, max: 1}")))
    assert [type(bound) for bound in space.parameters["optim.weight_decay"].bounds] == [float, float]
    space = read_space(written(tmp_path, parameter("ranks.init_rank", "{min: 4, max: 32, log: true}")))
    assert space.parameters["ranks.init_rank"].is_integer
    assert not space.parameters["ranks.init_rank"].contains(5.5)


def test_a_metric_too_slow_for_every_search_says_how_to_have_it(tmp_path: Path) -> None:
    edges = {"base": {"data": {"tasks": ["semseg", "edge"]}}}
    data = yaml.safe_load(SMALL) | edges | {"objectives": [{"name": "val/edge/ods_f", "goal": "maximize"}]}
    message = faults(tmp_path, yaml.safe_dump(data, sort_keys=False))
    key = "base.data.definitions: {edge: {type: edge, metric: ods_f}}"
    assert len(message) == 1 and message[0].endswith(f"where every epoch shall report it, set {key}")

    data["base"]["data"]["definitions"] = {"edge": {"type": "edge", "metric": "ods_f"}}
    space = read_space(written(tmp_path, yaml.safe_dump(data)))
    assert space.objectives[0].name == "val/edge/ods_f"


def test_metric_names_agree_with_the_task_table() -> None:
    for name, task in tasks_of(DataConfig(tasks=tuple(TYPES))).items():
        assert METRICS[task.type][0] == task.metric
        assert (goal_of(f"val/{name}/{task.metric}") == "maximize") == task.higher_is_better
    assert (goal_of("delta_m"), goal_of("trainable_params"), goal_of("time/step_ms")) == ("maximize", *["minimize"] * 2)


LINES = SHIPPED[0].read_text().splitlines()
JUNK = [
    "",
    "x",
    "-1",
    "2e-5",
    "99999999999999999999",
    "null",
    "true",
    "[1, x]",
    "{a: 1}",
    ".nan",
    "'1'",
    "&a [*a]",
    "!x y",
    "\t",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A shipped file with one to three lines dropped, doubled, renamed, given another value, or filled with junk."""
    lines: list[Any] = [line.encode() for line in LINES]
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        line = lines[index]
        name, colon, value = line.partition(b":")
        junk = draw(st.sampled_from(JUNK)).encode()
        lines[index] = draw(
            st.sampled_from(
                [
                    b"",
                    line + b"\n" + line,
                    name[:-1] + colon + value,
                    name + colon + b" " + junk,
                    line.replace(b"1", junk),
                    line.replace(b"0.", b"10."),
                    line.replace(b"{", b"[", 1),
                    b"\t" + line,
                    b"  " + line,
                    line + draw(st.binary(max_size=4)),
                    line.replace(b" ", b"\t"),
                ]
            )
        )
    return b"\n".join(lines)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_a_damaged_file_is_read_or_refused_but_never_raises_anything_else(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(raw)
    try:
        assert isinstance(read_space(path), SearchSpace)
    except ConfigError as error:
        assert all(fault.startswith(str(path)) for fault in error.faults)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["parameters", "parameters.x.min", "objectives.0", "base.pdrs", "a..b", "search.replicates", "controls"]
    ),
    st.sampled_from(["", ".", ".0", ".min", ".pdrs.beta", ".x.y"]),
    st.sampled_from(JUNK),
)
def test_any_override_is_read_or_refused(tmp_path: Path, key: str, more: str, value: str) -> None:
    try:
        read_space(written(tmp_path, SMALL), [f"{key}{more}={value}"])
    except ConfigError as error:
        assert error.faults
