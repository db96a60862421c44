"""Figures take what the commands take: names of data sets, images, models and runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import convscope as cs
from convscope.errors import RunError, UnknownName, UsageError


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    out = tmp_path_factory.mktemp("named") / "run"
    return cs.train("shapes", "shapes-cnn-1", epochs=1, out=out)


def test_a_name_gives_the_figure_of_the_object() -> None:
    data, model = cs.load_dataset("shapes"), cs.load_model("crosses")
    assert texts(cs.plot.samples("shapes")) == texts(cs.plot.samples(data))
    assert texts(cs.plot.kernels("crosses")) == texts(cs.plot.kernels(model))
    image = cs.load_image("crosses:plus", like=model)
    for figure in (cs.plot.maps, cs.plot.network):
        assert texts(figure("crosses", "crosses:plus")) == texts(figure(cs.trace(model, image)))
        assert texts(figure(model, "crosses:plus")) == texts(figure(cs.trace(model, image)))
    pixels = texts(cs.plot.pixels("crosses:plus"))
    assert "crosses:plus" in pixels[0]
    assert pixels[1:] == texts(cs.plot.pixels(image))[1:]


def test_a_run_gives_its_kernels_history_and_confusion(run: cs.Run) -> None:
    evaluation = cs.evaluate(run)
    by_counts = texts(cs.plot.confusion(evaluation.confusion, evaluation.classes, name="confusion on shapes"))
    for argument in (run, str(run.path), run.path, evaluation):
        assert texts(cs.plot.confusion(argument))[1:] == by_counts[1:]
    for argument in (run, str(run.path), run.path):
        assert texts(cs.plot.kernels(argument)) == texts(cs.plot.kernels(run.model))
        assert texts(cs.plot.history(argument)) == texts(cs.plot.history(run.history))


def test_what_is_missing_or_unknown_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'needs an image: cs\.plot\.maps\(model, "shapes:test/3"\)'):
        cs.plot.maps(cs.load_model("crosses"))
    with pytest.raises(UsageError, match="network takes a Trace as its trace, not an int"):
        cs.plot.network(3)
    with pytest.raises(UsageError, match="needs the names of the classes"):
        cs.plot.confusion(np.eye(2))
    with pytest.raises(UnknownName, match="no data set is called 'shapse'"):
        cs.plot.samples("shapse")
    with pytest.raises(RunError, match="does not exist"):
        cs.plot.history(tmp_path / "nowhere")


def test_a_picture_of_very_many_pixels_is_reduced_before_it_is_drawn() -> None:
    """Matplotlib takes gigabytes to scale down the 100 million pixels that an image file of some kilobytes can have."""
    wide = np.zeros((1, 3, 9000), np.float32)
    wide[..., 4500:] = 1
    (whole, *_) = cs.plot.pixels(wide).axes[0].images
    shown = np.asarray(whole.get_array())
    assert shown.shape == (3, 3000)
    np.testing.assert_array_equal(shown[0], np.arange(3000) >= 1500)


def test_objects_are_drawn_without_torch() -> None:
    code = (
        "import sys, numpy as np, convscope as cs; cs.plot.pixels(np.eye(3)); cs.plot.kernels(np.eye(3));"
        "cs.plot.samples(cs.load_dataset('crosses')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_completion_offers_figures_and_operations_and_no_inner_modules() -> None:
    assert {"kernels", "maps", "training_step"} <= {*dir(cs.plot)}
    assert {"conv2d", "PUBLISHED_IMAGE"} <= {*dir(cs.reference)}
    for module in (cs.plot, cs.reference):
        assert not [name for name in dir(module) if isinstance(getattr(module, name), type(cs))]
