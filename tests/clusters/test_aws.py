"""`ray up clusters/aws.yaml`, as Ray does it, against moto's server on loopback, a stand-in for EC2 and IAM.

`ssh` and `rsync` are stand-ins too, first on PATH: they note what they were asked and reach nobody, for the addresses
that moto invents belong to others.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "clusters" / "aws.yaml").read_text())
TYPES = FILE["available_node_types"]
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
command = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with open(os.environ["ASKED"], "a") as log:
    log.write(json.dumps(command) + "\\n")
if command[0] == "rsync" and command[-1].endswith("ray_bootstrap_config.yaml"):
    shutil.copy(command[-2], os.environ["ASKED"] + ".config")
if command[0] == "rsync" and command[-1].endswith("ray_bootstrap_key.pem"):
    shutil.copy(command[-2], os.environ["HOME"] + "/ray_bootstrap_key.pem")  # where the head has it
if "{{json .Config.Env}}" in command[-1]:
    print('["HOME=/home/ray"]')  # what `docker inspect` says of Ray's image
"""


@dataclass(frozen=True)
class Laptop:
    """Where `ray up` is called."""

    environment: dict[str, str]
    home: Path

    def ray(self, *arguments: str) -> str:
        """What Ray's command prints; it must succeed."""
        ray = str(Path(sys.executable).with_name("ray"))
        done = subprocess.run(
            [ray, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=200
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def asked(self) -> list[list[str]]:
        """The commands that `ssh` and `rsync` stood in for."""
        return [json.loads(line) for line in Path(self.environment["ASKED"]).read_text().splitlines()]

    @property
    def head_config_file(self) -> Path:
        """A copy of the config that went to the head: what its autoscaler starts workers by."""
        return Path(self.environment["ASKED"] + ".config")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Laptop]:
    """A laptop after `ray up clusters/aws.yaml`; the instance profiles that the file asks for were made before."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "home" / ".ray").mkdir(parents=True)
    (folder / "home" / ".ray" / "auth_token").write_text("token")
    (folder / "bin").mkdir()
    for name in ("ssh", "rsync"):
        (folder / "bin" / name).write_text(STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    cloud = {"AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    nowhere = dict.fromkeys(["HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9")  # what is not for loopback fails
    environment = {
        **cloud,
        **nowhere,
        "NO_PROXY": "127.0.0.1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": FILE["provider"]["region"],
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "ASKED": str(folder / "asked"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith(("AWS", "HTTP", "NO_")) or name == "HOME":
                patch.setenv(name, value)
        for profile in ("faar-ray-head", "faar-ray-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
        out = Laptop(environment, folder / "home")
        assert shutil.which("ssh", path=environment["PATH"]) == str(folder / "bin" / "ssh")
        out.ray("up", "--yes", "--no-config-cache", "clusters/aws.yaml")
        yield out


Instances = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def instances(laptop: Laptop) -> Instances:
    """`instances()`: those that run, the head first."""

    def look() -> list[dict[str, Any]]:
        alive = [{"Name": "instance-state-name", "Values": ["running"]}]
        reservations = boto3.client("ec2").describe_instances(Filters=alive)["Reservations"]
        result = [instance for one in reservations for instance in one["Instances"]]
        return sorted(result, key=lambda instance: tags(instance)["ray-node-type"] != "head")

    return look


def tags(thing: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing["Tags"]}


def as_the_file_says(instance: dict[str, Any], kind: str) -> None:
    config = TYPES[kind]["node_config"]
    assert (instance["ImageId"], instance["InstanceType"]) == (config["ImageId"], config["InstanceType"])
    assert instance["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{config['IamInstanceProfile']['Name']}")
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    result = tags(instance)
    assert (result["project"], result["cost-center"]) == ("faar-ray", "research")
    assert (result["ray-cluster-name"], result["ray-user-node-type"]) == ("faar-ray", kind)
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["faar-ray"]


def test_the_head_runs_as_the_file_says(instances: Instances) -> None:
    (head,) = instances()
    as_the_file_says(head, "head")
    assert "InstanceLifecycle" not in head, "on demand"
    assert tags(head)["ray-node-status"] == "up-to-date"


def test_only_ssh_comes_in_from_outside(laptop: Laptop) -> None:
    (group,) = boto3.client("ec2").describe_security_groups(GroupNames=["faar-ray"])["SecurityGroups"]
    inside = [rule for rule in group["IpPermissions"] if not rule["IpRanges"]]
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert [[pair["GroupId"] for pair in rule["UserIdGroupPairs"]] for rule in inside] == [[group["GroupId"]]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]


def test_the_head_gets_the_checkout_the_token_and_its_labels(laptop: Laptop) -> None:
    copies = [command for command in laptop.asked() if command[0] == "rsync"]
    (checkout,) = (command for command in copies if command[-1].endswith("/faar_ray/"))
    assert checkout[-2] == "./", "the folder that `ray up` is called in"
    assert "dir-merge,- .gitignore" in checkout and ".git" in checkout
    assert any(command[-2] == str(laptop.home / ".ray" / "auth_token") for command in copies)
    commands = [command[-1] for command in laptop.asked() if command[0] == "ssh"]
    (container,) = (command for command in commands if "docker run" in command)
    assert "-e RAY_AUTH_MODE=token" in container
    assert "/.ray/auth_token:/home/ray/.ray/auth_token" in container
    (start,) = (command for command in commands if "ray start --head" in command)
    assert '"usd-per-hour":"0.192"' in start and '{"CPU":0}' in start
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_enable_autoscaler_v2=1" in start, "only the second autoscaler heeds priorities"


@pytest.mark.parametrize("kind", ["gpu_spot", "gpu_on_demand"])
def test_a_worker_is_started_as_the_file_says(laptop: Laptop, instances: Instances, kind: str) -> None:
    """By the config that the head got, and by the provider of Ray's autoscaler."""
    before = {instance["InstanceId"] for instance in instances()}
    provider = autoscalers_provider(laptop.head_config_file)
    provider.launch({kind: 1}, f"request-{kind}")
    seen = eventually(lambda: [node for node in provider.get_non_terminated().values() if node.node_type == kind])
    assert [(node.request_id, node.is_running) for node in seen] == [(f"request-{kind}", True)]
    assert provider.poll_errors() == []
    (worker,) = (instance for instance in instances() if instance["InstanceId"] not in before)
    as_the_file_says(worker, kind)
    assert worker.get("InstanceLifecycle") == ("spot" if kind == "gpu_spot" else None)
    asked = json.loads(laptop.head_config_file.read_text())["available_node_types"][kind]
    for key in ("labels", "max_workers", "priority"):
        assert asked[key] == TYPES[kind][key]
    assert asked["resources"].items() >= TYPES[kind]["resources"].items()


def test_a_spot_request_that_fails_is_an_error_of_that_type(laptop: Laptop, tmp_path: Path) -> None:
    """Which makes the autoscaler ask for the other type: see `test_shipped`."""
    config = json.loads(laptop.head_config_file.read_text())
    config["available_node_types"]["gpu_spot"]["node_config"]["SubnetIds"] = ["subnet-00000000"]
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    provider = autoscalers_provider(tmp_path / "config.yaml")
    provider.launch({"gpu_spot": 2}, "request-failed")
    (error,) = eventually(provider.poll_errors)
    assert (error.node_type, error.count, error.request_id) == ("gpu_spot", 2, "request-failed")
    assert "subnet-00000000" in str(error.__cause__)


def autoscalers_provider(file: Path) -> NodeProviderAdapter:
    """What the autoscaler on the head starts and ends nodes by."""
    config = json.loads(file.read_text())
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    return NodeProviderAdapter(provider, FileConfigReader(str(file)))


def eventually(look: Callable[[], list[Any]]) -> list[Any]:
    """The first answer that is not empty, within 20 s."""
    for _ in range(100):
        if result := look():
            return result
        time.sleep(0.2)
    pytest.fail("nothing within 20 s")


def test_the_headers_search_reaches_the_container_on_the_head(laptop: Laptop) -> None:
    (line,) = (line for line in (ROOT / "clusters" / "aws.yaml").read_text().splitlines() if line[:9] == "# Search:")
    ray, *arguments = shlex.split(line.removeprefix("# Search: "))
    assert ray == "ray"
    laptop.ray(*arguments)
    sent = laptop.asked()[-1]
    assert sent[0] == "ssh" and "docker exec -it" in sent[-1] and "tmux new -d bash -c" in sent[-1]
    assert "cd faar_ray && python -m faar_ray.tune search_spaces/rho.yaml --address auto" in sent[-1]


def test_ray_down_ends_every_instance_and_asks_no_one_here(laptop: Laptop, instances: Instances) -> None:
    """The last test of this file: `ray stop` goes out by ssh, so it is only noted."""
    assert instances()
    laptop.ray("down", "--yes", "clusters/aws.yaml")
    assert instances() == []
    assert any("ray stop" in command[-1] and command[0] == "ssh" for command in laptop.asked()[-20:])
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
