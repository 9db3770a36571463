"""`ray up clusters/local.yaml`, as its header says, on hosts of their own network and process ids; one of them is lost.

moto's server on the laptop stands in for S3; nothing else is a stand-in. What is installed here serves the hosts, so
that nobody has to be asked over the network; of this project they install the checkout that came by rsync.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .hosts import HOME, NETWORK, Host, hosts

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TOOLS = ("unshare", "nsenter", "ip", "sshd", "ssh", "ssh-keygen", "rsync")
NOT_TRAVELLING = shutil.ignore_patterns(
    ".git", ".venv", "runs", "mlruns", "*.db", "__pycache__", ".*_cache", "*.egg-info", "build"
)
FILE = "clusters/local.yaml"
ENDPOINT = f"http://{NETWORK}.1:9000"
"""On the laptop."""
SMALL = (
    "budget.trials=6", "search.replicates=null", "controls=[]", "scheduler.type=none", "warm_start.points=[]",
    "optim.epochs=3", "pdrs.free_epochs=1", "data.train_images=120", "data.val_images=60", "data.test_images=60",
    "references={semseg: 40.0, human_parts: 20.0, normals: 30.0}",
)  # fmt: skip


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]:
        pytest.skip(f"no {', '.join(missing)} (apt-get install openssh-server rsync iproute2)")
    if os.geteuid() or subprocess.run(["unshare", "-mpnuif", "true"], check=False).returncode:
        pytest.skip("namespaces cannot be made here")
    folder = tmp_path_factory.mktemp("hosts")
    wheels = folder / "wheels"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, "setuptools>=77", "wheel"]
    subprocess.run(download, check=True)
    with hosts(folder, ["laptop", "head", "worker"], [Path(sys.prefix), Path(sys.base_prefix)]) as made:
        laptop, *others = made
        for host in others:
            furnish(host, wheels)
        shutil.copytree(ROOT, laptop.home / "checkout", ignore=NOT_TRAVELLING)
        yield made


def furnish(host: Host, wheels: Path) -> None:
    """An environment as a first `ray up` would leave it, but for this project, and the keys of the bucket."""
    env = host.home / "faar_ray_env"
    host.run("python", "-m", "venv", "--without-pip", f"{HOME}/faar_ray_env")
    site = next(env.glob("lib/python3*/site-packages"))
    (site / "installed.pth").write_text(sysconfig.get_path("purelib"))
    for name in ("pip", "ray"):
        _, rest = (Path(sysconfig.get_path("scripts")) / name).read_text().split("\n", 1)
        (env / "bin" / name).write_text(f"#!{HOME}/faar_ray_env/bin/python\n{rest}")
        (env / "bin" / name).chmod(0o755)
    shutil.copytree(wheels, host.home / "wheels")
    (host.home / ".config" / "pip").mkdir(parents=True)
    (host.home / ".config" / "pip" / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {HOME}/wheels\n")
    (host.home / ".aws").mkdir()
    (host.home / ".aws" / "credentials").write_text("[default]\naws_access_key_id = any\naws_secret_access_key = any\n")


@pytest.fixture(scope="module")
def bucket(machines: list[Host]) -> Iterator[str]:
    laptop = machines[0]
    serve = laptop.command("python", "-m", "moto.server", "-H", laptop.address, "-p", "9000")
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    put = f"import urllib.request as r; r.urlopen(r.Request('{ENDPOINT}/results', method='PUT'))"
    until(lambda: "Error" not in laptop.run("python", "-c", put, check=False), 60)
    yield "s3://results/runs"
    server.kill()


@pytest.fixture(scope="module")
def cluster(machines: list[Host]) -> Iterator[Callable[..., list[str]]]:
    """The file as its header says to edit it, then lines 3 and 4 of it; gives what runs further `ray` commands."""
    laptop, head, worker = machines
    file = laptop.home / "checkout" / FILE
    text = file.read_text()
    for old, new in {
        "head_ip: 192.168.1.10": f"head_ip: {head.address}",
        "worker_ips: [192.168.1.11]": f"worker_ips: [{worker.address}]",
        "ssh_user: ubuntu": "ssh_user: root",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)

    def ray(*words: str) -> list[str]:
        return laptop.command("env", "-C", f"{HOME}/checkout", "RAY_USAGE_STATS_ENABLED=0", "ray", *words)

    subprocess.run(ray("get-auth-token", "--generate"), check=True, capture_output=True)
    up(ray)
    yield ray


def until(there: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def trials_on(host: Host) -> int:
    """Processes that train there."""
    return int(host.run("sh", "-c", "pgrep -fc '^ray::TrialActor' || true").split()[-1])


def test_a_search_on_two_hosts_outlives_one_of_them_and_the_next_one_its_cluster(
    machines: list[Host], cluster: Callable[..., list[str]], bucket: str
) -> None:
    _, head, worker = machines
    bystander = subprocess.Popen(["raylet", "600"], executable=shutil.which("sleep"))  # what `ray stop` looks for
    until(lambda: len(alive(cluster)) == 2)

    with searching(cluster, bucket) as search:
        until(lambda: search.poll() is not None or (trials_on(head) and trials_on(worker)), 240)
        assert search.poll() is None, search.communicate()[0]
        worker.lose()
        answer = answer_of(search)
    assert answer["trials"] == {"complete": 6, "pruned": 0, "failed": 0}
    assert answer["path"] == f"{bucket}/rho"
    until(lambda: len(alive(cluster)) == 1)  # Ray takes its time to believe it

    with searching(cluster, bucket, "--name", "second") as search:
        until(lambda: search.poll() is not None or epochs_of(head, "second") >= 2, 240)
        down(cluster)
        search.communicate(timeout=60)
    until(lambda: not head.run("pgrep", "-fa", "raylet|gcs_server|dashboard", check=False).strip(), 20)
    assert bystander.poll() is None  # it is none of that cluster's business
    bystander.kill()
    bystander.wait()

    shutil.rmtree(head.home / ".cache")  # as on a new machine: all that is left is in the bucket
    up(cluster)
    with searching(cluster, bucket, "--name", "second", "--resume") as search:
        assert answer_of(search)["trials"] == {"complete": 6, "pruned": 0, "failed": 0}
    down(cluster)


def up(ray: Callable[..., list[str]]) -> None:
    done = subprocess.run(ray("up", "-y", FILE), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def down(ray: Callable[..., list[str]]) -> None:
    done = subprocess.run(ray("down", "-y", FILE), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def epochs_of(head: Host, name: str) -> int:
    """Epochs in the journal of a run."""
    journals = head.home.glob(f".cache/faar_ray/remote/*/{name}/study.log")
    return sum(journal.read_bytes().count(b'"epoch/') for journal in journals)


@contextlib.contextmanager
def searching(ray: Callable[..., list[str]], bucket: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command of the header, on a small scale."""
    search = f"python -m faar_ray.tune search_spaces/rho.yaml --address auto storage.path={bucket} --json"
    where = f"cd faar_ray && AWS_ENDPOINT_URL={ENDPOINT} AWS_REGION=us-east-1"
    command = ray("exec", FILE, " ".join([where, search, *(f"'{word}'" for word in SMALL), *more]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answer_of(search: subprocess.Popen[str]) -> dict[str, Any]:
    """What its last line says."""
    out = search.communicate(timeout=400)[0]
    assert search.returncode == 0, out[-6000:]
    return dict(json.loads(next(line for line in out.splitlines() if line.startswith('{"name"'))))


def alive(ray: Callable[..., list[str]]) -> list[str]:
    """Addresses of the nodes that Ray counts as alive."""
    nodes = "[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']]"
    code = f"import ray; ray.init('auto', log_to_driver=False); print({nodes})"
    done = subprocess.run(
        ray("exec", FILE, f'python -c "{code}"'), capture_output=True, text=True, check=False, timeout=120
    )
    result = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return list(json.loads(result[-1].replace("'", '"'))) if result else []
