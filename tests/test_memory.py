"""Memory: while imports create objects, no collection visits them, and the collector is left as it was."""

import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import convscope as cs
from convscope.memory import collection_paused
from launching import run


class Kept:
    """An object that the collector tracks."""

    def __init__(self) -> None:
        self.own = [self]


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing frozen, as `conftest.py` freezes the libraries."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_objects_made_in_a_pause_are_old_and_collected_by_the_next_full_collection() -> None:
    gc.collect()
    with collection_paused():
        assert not gc.isenabled()
        made = Kept()
    assert gc.isenabled()
    if sys.version_info < (3, 14):  # whose collector has no oldest generation that could be listed
        assert any(each is made for each in gc.get_objects(generation=2))
    reference = weakref.ref(made)
    del made
    assert reference() is not None  # it refers to itself
    gc.collect()
    assert reference() is None


def test_a_pause_leaves_the_collector_as_it_was_also_when_the_block_fails() -> None:
    with pytest.raises(cs.UsageError), collection_paused():
        raise cs.UsageError("fails")
    assert gc.isenabled()
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_that_were_frozen_stay_frozen() -> None:
    frozen = Kept()
    gc.freeze()
    with collection_paused():
        pass
    assert all(each is not frozen for each in gc.get_objects())  # which lists those that a collection may visit


def test_the_first_use_of_a_name_runs_no_collection(tmp_path: Path) -> None:
    """Its imports load torch, whose objects would be visited several times."""
    code = (
        "import gc; runs = []; gc.callbacks.append(lambda phase, info: runs.append(phase))\n"
        "import convscope as cs; cs.read_image; runs.clear(); cs.load_model; print('collections:', len(runs))"
    )
    assert "collections: 0" in run(sys.executable, "-c", code, cwd=tmp_path).stdout
