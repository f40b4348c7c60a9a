"""Machines of a network on this one: each has a network, a host name and a file system of its own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

NEEDED = ("ip", "unshare", "nsenter")
POSSIBLE = os.getuid() == 0 and all(shutil.which(tool) for tool in NEEDED)
"""Whether this machine lets us make them."""
HERE = Path("/mnt")
"""Of each machine, where it has a folder of its own, and others have theirs."""


class Machine:
    """A process holds its namespaces; whatever runs on it ends with that.

    Args:
        address: on the network.
        folder: what it has at `HERE`.
    """

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        folder.mkdir(parents=True, exist_ok=True)
        script = f"hostname {name}; mount --bind {folder} {HERE}; ip link set lo up; echo ready; exec sleep infinity"
        namespaces = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._holder = subprocess.Popen([*namespaces, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        self._processes: list[subprocess.Popen[bytes]] = []
        with self._holder.stdout as output:
            assert output.readline() == "ready\n"
        self.pid = int(Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text())

    @property
    def enter(self) -> list[str]:
        """What precedes a command that is to run on it."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--pid", f"--wdns={HERE}", "--"]

    def start(self, *command: str, log: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """A process on it, in its folder; its output goes to a file there."""
        with (self.folder / log).open("ab") as output:
            environment = {**os.environ, **(env or {})}
            command = (*self.enter, *command)
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        self._processes.append(process)
        return process

    def python(self, *words: str, log: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        return self.start(sys.executable, "-m", *words, log=log, env=env)

    def power_off(self) -> None:
        """Everything on it is gone at once, without a word to anybody."""
        self._holder.send_signal(signal.SIGKILL)
        for process in (self._holder, *self._processes):
            process.wait()

    def ip(self, *words: str) -> None:
        """Sets up its network."""
        subprocess.run(["nsenter", f"--target={self.pid}", "--net", "ip", *words], check=True)


class Network:
    """Machines on one switch, whose links can be cut. Leaving the context powers them off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.machines: list[Machine] = []
        self._switch = Machine("switch", "", folder / "switch")
        self._switch.ip("link", "add", "switch", "type", "bridge")
        self._switch.ip("link", "set", "switch", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in (*self.machines, self._switch):
            machine.power_off()

    def add(self, name: str) -> Machine:
        """A machine on the network."""
        number = len(self.machines) + 1
        machine = Machine(name, f"192.0.2.{number}", self._folder / name)  # TEST-NET-1 (RFC 5737)
        self.machines.append(machine)
        plug = ["type", "veth", "peer", "name", "eth0", "netns", str(machine.pid)]
        self._switch.ip("link", "add", name, *plug)
        self._switch.ip("link", "set", name, "master", "switch", "up")
        machine.ip("address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.ip("link", "set", "eth0", "up")
        return machine

    @contextmanager
    def cut(self, machine: Machine) -> Iterator[None]:
        """Nothing reaches the machine, and nothing leaves it."""
        self._switch.ip("link", "set", machine.name, "nomaster")
        yield
        self._switch.ip("link", "set", machine.name, "master", "switch")
