"""The files in `clusters/`, as a user finds them: Ray takes them, they keep the house's rules, their headers hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from faar_ray.cluster.file import read_cluster
from faar_ray.tune.__main__ import parser

from .house_rules import house_faults

CLUSTERS = Path(__file__).parents[2] / "clusters"
FILES = sorted(path for path in CLUSTERS.iterdir() if path.suffix in (".yaml", ".sh"))
CLOUDS = [CLUSTERS / f"{cloud}.yaml" for cloud in ("aws", "azure", "gcp")]
LOCAL = CLUSTERS / "local.yaml"
HOUSE = [path for path in FILES if path.suffix == ".yaml"]


def named(path: Path) -> str:
    return path.name


def header(path: Path) -> list[str]:
    """The remarks at a file's top, without the line that names the shell."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#!")]
    return [line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("# "))]]


@pytest.mark.parametrize("path", CLOUDS, ids=named)
def test_ray_takes_the_file(path: Path) -> None:
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    kinds = config["available_node_types"]
    assert {kind["min_workers"] for kind in kinds.values()} == {0}
    assert config["head_setup_commands"][0] == config["worker_setup_commands"][0], "one install for all nodes"


def test_ray_takes_the_file_of_machines_that_are_there() -> None:
    config = prepare_config(yaml.safe_load(LOCAL.read_text()))
    validate_config(config)
    (kind,) = config["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("path", HOUSE, ids=named)
def test_the_file_keeps_the_rules_of_the_house(path: Path) -> None:
    assert house_faults(path) == []


@pytest.mark.parametrize("path", [*CLOUDS, CLUSTERS / "kuberay.yaml"], ids=named)
def test_no_trial_lands_on_the_head_and_spot_has_something_to_fall_back_on(path: Path) -> None:
    cluster = read_cluster(path)
    (head,) = (kind for kind in cluster.types if kind.head)
    assert (head.node.cpus, head.node.gpus, head.most, head.spot) == (0, 0, 1, False)
    (spot,) = (kind for kind in cluster.types if kind.spot)
    (demand,) = (kind for kind in cluster.types if not kind.spot and not kind.head)
    assert spot.node == demand.node and spot.node.gpus == 1
    assert spot.usd_per_hour is not None and demand.usd_per_hour is not None
    assert 0 < spot.usd_per_hour < demand.usd_per_hour


@pytest.mark.parametrize("path", CLOUDS, ids=named)
@pytest.mark.parametrize(("failed", "expected"), [([], "gpu_spot"), (["gpu_spot"], "gpu_on_demand")])
def test_ray_asks_for_spot_and_after_a_failure_for_the_other(path: Path, failed: list[str], expected: str) -> None:
    config = AutoscalingConfig(prepare_config(yaml.safe_load(path.read_text())), skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 1, "GPU": 1})] * 4),
        recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    assert {one.instance_type: one.count for one in reply.to_launch} == {expected: 4}


@pytest.mark.parametrize("path", [CLUSTERS / "aws.yaml", CLUSTERS / "azure.yaml"], ids=named)
def test_the_price_of_a_spot_node_is_the_most_that_is_bid_for_it(path: Path) -> None:
    kind = yaml.safe_load(path.read_text())["available_node_types"]["gpu_spot"]
    config = kind["node_config"]
    bids = [
        config.get("InstanceMarketOptions", {}).get("SpotOptions", {}).get("MaxPrice"),
        config.get("azure_arm_parameters", {}).get("billingProfile", {}).get("maxPrice"),
    ]
    assert [str(bid) for bid in bids if bid] == [kind["labels"]["usd-per-hour"]]


@pytest.mark.parametrize("path", CLOUDS, ids=named)
def test_the_cluster_costs_under_its_tags(path: Path) -> None:
    for kind in yaml.safe_load(path.read_text())["available_node_types"].values():
        config = kind["node_config"]
        amazon = {tag["Key"]: tag["Value"] for spec in config.get("TagSpecifications", []) for tag in spec["Tags"]}
        assert (amazon or config.get("labels") or config.get("tags"))["project"] == "faar-ray"


@pytest.mark.parametrize("path", CLOUDS, ids=named)
def test_the_image_and_the_install_are_of_the_version_that_was_tested(path: Path) -> None:
    (pinned,) = re.findall(r"^ray==(.+)$", (CLUSTERS.parent / "constraints.txt").read_text(), re.MULTILINE)
    config = yaml.safe_load(path.read_text())
    for image in (config["docker"]["head_image"], config["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{pinned}-py311-")
    assert "-c ~/faar_ray/constraints.txt" in config["setup_commands"][0]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_header_has_ten_lines_that_say_it_all(path: Path) -> None:
    lines = header(path)
    assert len(lines) == 10
    words = {line.removeprefix("# ").split(":")[0].split(",")[0] for line in lines}
    assert words >= {"Edit", "Per hour", "Start", "Search", "Watch", "MLflow", "End", "Go on"}
    assert any("check yours" in line for line in lines) or path.name in ("slurm.sh", "local.yaml")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_headers_search_is_the_main_job(path: Path) -> None:
    text = " ".join(header(path))
    (result,) = re.findall(r"python -m faar_ray\.tune (.+?)(?:'| #|$)", text)
    options = parser().parse_intermixed_args(shlex.split(result))
    assert (CLUSTERS.parent / options.space).is_file()
    assert options.address == "auto"
    keys = dict(one.split("=", 1) for one in options.overrides)
    assert (keys["resources.workers"], keys["resources.gpus_per_worker"]) == ("4", "1")
    assert keys["storage.path"].startswith(("s3://", "gs://", "az://", "/", "RUNS"))
    assert "--resume" in text


def test_the_files_travel_without_what_must_stay() -> None:
    """What `.gitignore` and the exclusions of a file keep back, and that the token is mounted from the laptop."""
    for path in [*CLOUDS, LOCAL]:
        config = yaml.safe_load(path.read_text())
        assert config["rsync_filter"] == [".gitignore"]
        assert {".git", ".venv", "runs"} <= set(config["rsync_exclude"])
        assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
        assert config["file_mounts"]["~/faar_ray"] == "."
