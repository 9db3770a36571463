"""Hosts on one machine: each has its own network, process ids, shared memory, /tmp and home, and runs sshd.

They hang on a bridge inside the first one, the laptop, and lead nowhere else: neither this machine's network nor its
processes can be seen from them. What is installed here is what is installed there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.7"
HOME = pwd.getpwuid(0).pw_dir
"""Of root on every host, where sshd looks for its keys; each host has a folder of its own there."""
LOGIN = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
FURNISH = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/kept /mnt/home
for folder in {kept}; do mkdir -p "/mnt/kept$folder"; mount --bind "$folder" "/mnt/kept$folder"; done
mount --bind {home} /mnt/home
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount --bind /mnt/home {root}
mkdir -p /run/sshd
for folder in {kept}; do mkdir -p "$folder"; mount --bind "/mnt/kept$folder" "$folder"; done
hostname {name}
ip link set lo up
echo ready
while :; do sleep 1; done
"""
"""Makes a new mount namespace a host: the folders that must be seen are bound again over an empty /tmp. The shell is
process 1: it buries orphans whenever its `sleep` ends."""
SSHD = """
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Host:
    """A machine."""

    name: str
    address: str
    home: Path
    process: subprocess.Popen[bytes]
    """The namespaces' owner, outside; its one child is process 1 in there."""

    @property
    def init(self) -> int:
        """Process id, outside, of process 1 inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def command(self, *words: str) -> list[str]:
        """What runs a command there, as root in its home, with an environment of its own."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["nsenter", "-t", str(self.init), "-m", "-p", "-n", "-u", "-i", f"--wd={HOME}"]
        return [*inside, "env", "-i", f"HOME={HOME}", f"PATH={path}", "LANG=C.UTF-8", "USER=root", *words]

    def run(self, *words: str, timeout: float = 300, check: bool = True) -> str:
        """Run it; gives what it printed, both streams."""
        done = subprocess.run(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{words} on {self.name}: {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def lose(self) -> None:
        """The machine is gone, at once: whatever ran on it, and its network."""
        with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
            os.kill(self.init, signal.SIGKILL)
        self.process.kill()
        self.process.wait(timeout=60)


@contextlib.contextmanager
def hosts(folder: Path, names: list[str], kept: list[Path]) -> Iterator[list[Host]]:
    """Start them; the first is the laptop, which the others can be reached from, and whose key they let in.

    Args:
        folder: for their homes.
        names: of them.
        kept: folders of this machine that stay visible at their place.
    """
    made: list[Host] = []
    try:
        for number, name in enumerate(names, start=1):
            made.append(_host(folder / name, name, f"{NETWORK}.{number}", kept))
        laptop, *others = made
        laptop.run("ip", "link", "add", "bridge0", "type", "bridge")
        laptop.run("ip", "addr", "add", f"{laptop.address}/24", "dev", "bridge0")
        laptop.run("ip", "link", "set", "bridge0", "up")
        laptop.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{HOME}/.ssh/id_ed25519")
        for host in others:
            _plug(host, laptop)
            _serve(host, laptop)
        yield made
    finally:
        for host in made:
            host.lose()


def _host(home: Path, name: str, address: str, kept: list[Path]) -> Host:
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    script = FURNISH.format(kept=" ".join(f"'{path}'" for path in kept), home=home, root=HOME, name=name)
    spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    mortal = ["setpriv", "--pdeathsig", "KILL"]  # it ends with this process, however that ends
    process = subprocess.Popen([*mortal, "unshare", *spaces, "sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", f"{name} did not start"
    return Host(name, address, home, process)


def _plug(host: Host, laptop: Host) -> None:
    """A cable from the host to the laptop's bridge; the default route ends there."""
    end = f"to-{host.name}"[:15]
    remote = [
        "nsenter",
        "-t",
        str(laptop.init),
        "-n",
    ]  # its network, but the process ids of outside, to name the host's
    link = ["ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(host.init)]
    subprocess.run([*remote, *link], check=True)
    laptop.run("ip", "link", "set", end, "master", "bridge0", "up")
    host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "route", "add", "default", "via", laptop.address)


def _serve(host: Host, laptop: Host) -> None:
    shutil.copy(laptop.home / ".ssh" / "id_ed25519.pub", host.home / ".ssh" / "authorized_keys")
    (host.home / "sshd_config").write_text(SSHD)
    host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{HOME}/host_key")
    files = ["-f", f"{HOME}/sshd_config", "-h", f"{HOME}/host_key"]
    host.run("/usr/sbin/sshd", *files, "-o", f"ListenAddress={host.address}")
    deadline = time.monotonic() + 30
    while not (answer := laptop.run("ssh", *LOGIN, f"root@{host.address}", "hostname", check=False)).startswith(
        host.name
    ):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
