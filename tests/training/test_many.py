"""Many processes on several hosts: how they are started, what they refuse, and what a death costs: nothing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import convscope as cs
from launching import PATIENCE, SEVERAL, TORCHRUN, environment, free_port, run

pytestmark = SEVERAL

CONVSCOPE = (sys.executable, "-m", "convscope")
TRAIN = ("train", "shapes", "--epochs", "1", "--seed", "1", "--device", "cpu")

DRAWING = """
import os
import torch
from torch import Tensor, nn


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(784, 16), nn.Dropout(0.4), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            torch.rand(int(os.environ.get("RANK", "0")))
        return self.fc2(self.drop(torch.relu(self.fc1(x.flatten(1)))))
"""
"""A model of dropout, in which each process draws other random numbers."""

DYING = """
import os, signal, sys, threading, time
from pathlib import Path

import convscope as cs

number, root = os.environ["RANK"], Path(sys.argv[1])
disk = root / f"disk{number}"
disk.mkdir(exist_ok=True)
os.chdir(disk)

def die():
    while not any(int(path.name) > 20 for path in (root / "disk0").glob("runs/*/snapshots/[0-9]*")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and number == "1":
    threading.Thread(target=die, daemon=True).start()
steps = []
slow = lambda event: time.sleep(0.05) if event["event"] == "progress" else None
model = f"{root.parent}/drawing.py:Drawing"
run = cs.train("shapes", model, epochs=2, batch_size=15, seed=1, device="cpu", snapshot_seconds=0, watch=slow)
os.write(1, f"{number} {os.environ['TORCHELASTIC_RESTART_COUNT']} {run.path}\\n".encode())
"""

OTHER_DATA = """
import os
import numpy as np
import convscope as cs

cs.launch(2)
images = np.zeros((8, 1, 28, 28), np.uint8)
images[:, :, int(os.environ["RANK"])] = 255
cs.train((images, np.arange(8) % 2), "shapes-cnn", epochs=1, device="cpu", out="other")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two processes that nothing hit, and what they said."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "drawing.py").write_text(DRAWING)
    more = ("--model", "drawing.py:Drawing", "--epochs", "2", "--batch-size", "15", "--devices", "2")
    result = run(*CONVSCOPE, *TRAIN, *more, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "drawing", result.stdout


def test_the_command_starts_its_processes_and_speaks_once(whole: tuple[Path, str]) -> None:
    path, message = whole
    assert message.count("was written after") == 1
    assert cs.Run(path).config["environment"]["processes"] == 2


def test_a_host_that_never_joins_is_told_in_time(tmp_path: Path) -> None:
    def alone(node: str) -> subprocess.CompletedProcess[str]:
        env = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), NODE_RANK=node)
        return run(*CONVSCOPE, *TRAIN, "--num-nodes", "2", "--patience", "2", cwd=tmp_path, env=env)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(alone, ("0", "1")))
    for node, result in enumerate(results):
        assert result.returncode == 1
        assert f"not all of 2 processes have joined within 2 s: process {node} on " in result.stderr
        assert "Traceback" not in result.stderr


def test_what_cannot_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(cs.UsageError, match="devices must be an integer from 1, not 0"):
        cs.launch(0)
    with pytest.raises(cs.UsageError, match=r"2 hosts find each other by MASTER_ADDR .*set MASTER_ADDR, MASTER_PORT"):
        cs.launch(num_nodes=2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(cs.UsageError, match="NODE_RANK is 2; it must be 0 to 1"):
        cs.launch(num_nodes=2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(cs.UsageError, match="torchrun has started devices 3, and --devices says 2"):
        cs.launch(2)


def test_processes_that_have_other_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER_DATA)
    result = run(sys.executable, "other.py", cwd=tmp_path)
    assert result.returncode != 0
    assert "processes 0 and 1 of this training have different training data; give every host" in result.stderr


def test_a_killed_process_costs_nothing(whole: tuple[Path, str], tmp_path: Path) -> None:
    """Its group is started anew, without a shared disk, and ends in the same bits as a training that nothing hit."""
    (tmp_path / "dying.py").write_text(DYING)
    (tmp_path / "drawing.py").write_text(DRAWING)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1", "dying.py"]
    (tmp_path / "hit").mkdir()
    hit = run(*command, str(tmp_path / "hit"), cwd=tmp_path)
    assert hit.returncode == 0, hit.stderr
    assert sorted(hit.stdout.splitlines()) == ["0 1 runs/drawing", "1 1 runs/drawing"]
    assert not (tmp_path / "hit" / "disk1" / "runs").exists()
    first, second = whole[0], tmp_path / "hit" / "disk0" / "runs" / "drawing"
    for (name, one), two in zip(
        load_file(first / "weights.safetensors").items(),
        load_file(second / "weights.safetensors").values(),
        strict=True,
    ):
        np.testing.assert_array_equal(two, one, err_msg=name)
    kept = [
        [(event["step"], event["loss"]) for event in cs.load_run(path).history if event["event"] == "train"]
        for path in (first, second)
    ]
    assert kept[0] == kept[1]


def assert_agents_train_together(address: str, folder: Path, prefixes: Sequence[Sequence[str]] = ((), ())) -> None:
    """Two torchrun agents, each in a folder of its own, train together; the first writes the run."""
    path = f"{address}:{free_port()}"
    started = []
    for node, prefix in enumerate(prefixes):
        (folder / f"host{node}").mkdir()
        env = environment(**({"GLOO_SOCKET_IFNAME": f"cs{node}"} if prefix else {}))
        where = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={path}"]
        where += [f"--local-addr={address[:-1]}{node + 1}"] if prefix else []
        where += [f"--rdzv-conf=is_host={int(node == 0)},read_timeout={PATIENCE}"]
        command = [*prefix, *TORCHRUN, *where, "-m", "convscope", *TRAIN]
        started.append(
            subprocess.Popen(
                command,
                cwd=folder / f"host{node}",
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    try:
        message = [process.communicate(timeout=PATIENCE)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], message
    runs = [run for run in folder.glob("host*/runs/shapes-cnn") if (run / "weights.safetensors").exists()]
    assert len(runs) == 1, message
    assert "".join(message).count("was written after") == 1
    assert cs.load_run(runs[0]).config["environment"]["processes"] == 2


def test_two_agents_train_together(tmp_path: Path) -> None:
    assert_agents_train_together("127.0.0.1", tmp_path)


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """Two network namespaces joined by a cable, as commands that run something within them."""
    ip = shutil.which("ip")
    if ip is None:
        pytest.skip("network namespaces are made by `ip`, which is not installed")
    names = ["convscope-a", "convscope-b"]
    steps = [["netns", "add", name] for name in names]
    steps += [["link", "add", "cs0", "netns", names[0], "type", "veth", "peer", "name", "cs1", "netns", names[1]]]
    for number, name in enumerate(names):
        steps += [["-n", name, "addr", "add", f"10.213.7.{number + 1}/24", "dev", f"cs{number}"]]
        steps += [["-n", name, "link", "set", device, "up"] for device in (f"cs{number}", "lo")]
    try:
        for step in steps:
            made = subprocess.run([ip, *step], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"this machine allows no network namespaces: {made.stderr.strip()}")
        yield [[ip, "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)


@pytest.mark.study
def test_two_hosts_train_together(hosts: list[list[str]], tmp_path: Path) -> None:
    assert_agents_train_together("10.213.7.1", tmp_path, hosts)
