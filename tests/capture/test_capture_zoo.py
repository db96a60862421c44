"""Capture on models of other libraries: the same bits, every step replayed, everything left as it was."""

import pytest
import torch

import convscope as cs
from proving import fused_transformers
from replay import assert_replays, assert_same_output, same
from zoo import ZOO, born

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's models warn about themselves


@pytest.mark.parametrize("name", ZOO)
def test_a_trace_has_the_bits_of_an_untraced_run_and_every_step_replays(name: str) -> None:
    model, image = born(name)
    with fused_transformers(False), torch.no_grad():  # as in a trace
        expected = model.eval()(image)
    trace = cs.trace(model, image)
    assert_same_output(expected, trace.output)
    assert_replays(trace)


@pytest.mark.parametrize("name", sorted(ZOO.keys() - {"SENet"}))
def test_a_training_trace_has_the_bits_of_an_untraced_run(name: str) -> None:
    model, image = born(name)
    image = torch.cat([image, image + 1])
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    trace = cs.trace(model, image, training=True)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        expected = model(image)
    assert_same_output(expected, trace.output)


@pytest.mark.parametrize("name", ["ResNet", "Swin", "LeViT", "UNet", "TransformerEncoder"])
def test_less_kept_gives_the_same_numbers(name: str) -> None:
    model, image = born(name)
    everything = cs.trace(model, image)
    for keep in (0.02, [everything.steps[3].name, everything.steps[-1].name] if len(everything) > 3 else 0):
        trace = cs.trace(model, image, keep=keep)
        assert [repr(step) for step in trace.all_steps] == [repr(step) for step in everything.all_steps]
        assert_replays(trace)
        for one, other in zip(trace.steps, everything.steps, strict=True):
            assert all(map(same, one.outputs, other.outputs)), one


def test_encoder_layers_are_seen_step_by_step() -> None:
    model, image = born("TransformerEncoder")
    ops = [step.op for step in cs.trace(model, image).steps]
    assert not any("encoder" in op or "multi_head" in op for op in ops)
    assert ops.count("native_layer_norm") == 4
    model, image = born("ViT")
    assert sum("scaled_dot_product" in step.op for step in cs.trace(model, image).steps) == 2


def test_names_are_those_of_the_modules() -> None:
    model, image = born("ViT")
    names = {step.name for step in cs.trace(model, image).steps}
    modules = dict(model.named_modules())
    sums = {"vit.layers.0": ("add", "add#2"), "vit.encoder.layer.0": ("add", "output.add")}  # by release
    block = next(name for name in sums if name in modules)
    linear = {name for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    assert len(linear) > 6
    expected = {"vit.embeddings.patch_embeddings.projection", *(f"{block}.{name}" for name in sums[block])}
    assert linear | expected <= names
