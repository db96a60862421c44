"""Weights: read safely, put in whole or not at all."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.errors import WeightsError
from convscope.models.loading import load_model
from convscope.models.weight_matching import entries_of, find_weights
from convscope.models.weights import load_weights


def network() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), fc=nn.Linear(2, 3)))


def filled() -> dict[str, Tensor]:
    """Weights that no fresh network has."""
    return {name: torch.full_like(tensor, 7) for name, tensor in network().state_dict().items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in filled().items()}


def assert_filled(model: nn.Module) -> None:
    assert all((tensor == 7).all() for tensor in model.state_dict().values())


def assert_untouched(model: nn.Module, before: Mapping[str, Tensor]) -> None:
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


FILES: Mapping[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "a state dict": (filled, ()),
    "in a checkpoint": (
        lambda: {"epoch": 3, "state_dict": filled(), "optimizer": {"lr": 0.1}},
        ("took the weights from 'state_dict'",),
    ),
    "two levels down": (
        lambda: {"model": {"model_state_dict": filled()}},
        ("took the weights from 'model'", "took the weights from 'model_state_dict'"),
    ),
    "of DataParallel": (lambda: prefixed("module."), ("removed the prefix 'module.' from 9 names",)),
    "of torch.compile in Lightning": (
        lambda: {"state_dict": prefixed("model._orig_mod.")},
        ("took the weights from 'state_dict'", "removed the prefix 'model._orig_mod.' from 9 names"),
    ),
    "beside a counter": (lambda: filled() | {"epoch": 4}, ()),
}


@pytest.mark.parametrize(("saved", "notes"), FILES.values(), ids=FILES)
def test_a_state_dict_is_found_wherever_training_scripts_put_it(
    tmp_path: Path, saved: Callable[[], Any], notes: tuple[str, ...]
) -> None:
    torch.save(saved(), tmp_path / "w.pt")
    model = network()
    assert load_weights(model, tmp_path / "w.pt") == notes
    assert_filled(model)
    assert card_of(load_model(network(), weights=tmp_path / "w.pt")).notes == (*card_of(network()).notes, *notes)


@given(st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "a.b."]), max_size=4).map("".join))
def test_any_pile_of_prefixes_is_taken_off(prefix: str) -> None:
    own = network().state_dict()
    entries = entries_of(prefixed(prefix))
    match, others = find_weights(entries, own, None, "net", "w.pt")
    assert (match.prefix, match.names.keys(), others) == (prefix, own.keys(), [])


def test_a_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.Linear(2, 2)})
    save_file(
        {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    assert load_weights(model, tmp_path / "w.safetensors") == ()
    assert_filled(model)


def test_two_tensors_for_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    save_file(prefixed("") | prefixed("module."), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"9 unexpected \(module\..* and 6 more\)"):
        load_weights(network(), tmp_path / "w.safetensors")


def test_other_types_become_the_models_own_and_it_says_so(tmp_path: Path) -> None:
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in filled().items()},
        tmp_path / "w.safetensors",
    )
    model = network()
    assert load_weights(model, tmp_path / "w.safetensors") == ("converted float16 to float32",)
    assert_filled(model)


def test_numbers_beyond_the_models_type_are_refused(tmp_path: Path) -> None:
    tensors = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in filled().items()}
    tensors["conv.bias"][0] = 1e300
    save_file(tensors, tmp_path / "w.safetensors")
    model = network()
    message = r"1 of another shape or type \(conv\.bias is beyond the numbers of the model's float32\)"
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path / "w.safetensors")
    tensors["conv.bias"][0] = torch.inf  # as it was trained, and as the model holds it
    save_file(tensors, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert model.get_parameter("conv.bias")[0] == torch.inf


def test_batch_counters_and_shared_tensors_may_be_missing(tmp_path: Path) -> None:
    save_file(
        {name: value for name, value in filled().items() if "num_batches" not in name}, tmp_path / "old.safetensors"
    )
    model = network()
    load_weights(model, tmp_path / "old.safetensors")
    assert all((value == 7).all() for name, value in model.state_dict().items() if "num_batches" not in name)

    tied, again = shared(), shared()
    save_model(tied, str(tmp_path / "tied.safetensors"))
    load_weights(again, tmp_path / "tied.safetensors")
    assert_untouched(again, tied.state_dict())


def shared() -> nn.Module:
    """Two layers with the same weights."""
    tied = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    return tied


def test_layers_that_learn_their_shape_take_it_from_the_file(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2, 5), "bias": torch.ones(2)}, tmp_path / "w.safetensors")
    model = nn.LazyLinear(2)
    load_weights(model, tmp_path / "w.safetensors")
    assert model(torch.ones(1, 5)).tolist() == [[6, 6]]


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    both = filled() | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in both.items() if value is not None}


MISFITS: Mapping[str, tuple[dict[str, Tensor], str]] = {
    "missing": (
        changed(fc__bias=None, conv__bias=None),
        r"2 missing \(conv\.bias, fc\.bias\)\. 7 of its 9 tensors fit",
    ),
    "unexpected": (changed(head__weight=torch.ones(2)), r"1 unexpected \(head\.weight\)\. 9 of its 9"),
    "of another shape": (
        changed(fc__weight=torch.ones(5, 2), conv__bias=torch.ones(())),
        r"2 of another shape or type \(conv\.bias is a single number, the model's 2, fc\.weight is 5x2, the model's",
    ),
    "of another network": ({"a.b": torch.ones(1)}, r"8 missing \(.* and 5 more\); 1 unexpected \(a\.b\)\. 0 of its 9"),
}


@pytest.mark.parametrize(("saved", "message"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_listed_and_change_nothing(
    tmp_path: Path, saved: dict[str, Tensor], message: str
) -> None:
    save_file(saved, tmp_path / "w.safetensors")
    model = network()
    before = copies(model)
    with pytest.raises(WeightsError, match=r"do not fit Sequential: .*" + message):
        load_weights(model, tmp_path / "w.safetensors")
    assert_untouched(model, before)


class Attack:
    """What a pickle may do when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    warned = tmp_path / "told"
    torch.save({"state_dict": Attack(warned)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Attack(warned)))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(WeightsError):
            load_weights(network(), tmp_path / name)
    assert not warned.exists()


def test_a_pickled_model_gets_the_sentence_how_to_convert_it_and_it_works(tmp_path: Path) -> None:
    whole = network()
    torch.save(whole, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match=r"is a pickled object \(a whole model") as caught:
        load_weights(network(), tmp_path / "whole.pt")
    code = str(caught.value).partition("`")[2].rpartition("`")[0]
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        exec(code, {"torch": torch})  # the advice itself is what is tested
    finally:
        os.chdir(here)
    model = network()
    load_weights(model, tmp_path / "whole.safetensors")
    assert_untouched(model, whole.state_dict())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("these are no weights")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "half.safetensors").write_bytes(b"\x99" * 40)
    torch.save(filled(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:500])
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" * 40)
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pt")
    for name, message in {
        "text.pt": "is damaged or was not written by torch.save",
        "empty.pth": r"is empty \(0 bytes\)",
        "cut.pt": "is damaged or was not written by torch.save",
        "half.safetensors": "is damaged or not a safetensors file",
        "gone.pt": "there is no file .*; check the path",
        "net.onnx": "is damaged or was not written by torch.save; weights are read from .safetensors files",
        "tensor.pt": r"holds no state dict \(it is a Tensor\)",
        "numbers.pt": r"holds no state dict \(its names are epoch, lr\)",
        ".": r"is a folder; name a file in it: cut\.pt, empty\.pth, half\.safetensors",
    }.items():
        with pytest.raises(WeightsError, match=message):
            load_weights(network(), tmp_path / name)
