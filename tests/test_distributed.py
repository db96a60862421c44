"""Several processes train as one: real processes under torchrun, joined by gloo."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import convscope as cs

pytest.importorskip("lightning_fabric", reason="training in several processes needs Lightning Fabric")

TRAIN = """
import sys, convscope as cs
from pathlib import Path
cs.train("shapes", "shapes-cnn", epochs=2, batch_size=15, seed=1, device="cpu", out=Path(sys.argv[1]))
"""


def torchrun(processes: int, script: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(script), str(out)], capture_output=True, text=True, env=environment, check=False, timeout=240
    )


def test_two_processes_end_in_the_weights_of_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    result = torchrun(2, script, tmp_path / "two")
    assert result.returncode == 0, result.stderr
    cs.train("shapes", "shapes-cnn", epochs=2, batch_size=15, seed=1, device="cpu", out=tmp_path / "one")
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5, err_msg=name)
    first, second = (cs.load_run(tmp_path / name).metrics for name in ("one", "two"))
    assert second["accuracy"] == first["accuracy"]
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
