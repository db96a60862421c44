"""What all tests share: real data where it is, and a quiet, short-lived environment."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("convscope", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("convscope")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real MNIST and a photo."""
    found = os.environ.get("CONVSCOPE_DATA")
    if not found or not Path(found).is_dir():
        pytest.skip("CONVSCOPE_DATA names no folder with mnist/ and images/")
    return Path(found)
