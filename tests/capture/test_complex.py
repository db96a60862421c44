"""Networks that calculate with complex numbers: what is shown of these is true, and nothing of them is proved."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from asking import page_of
from commands import Commands
from figures import drawn, texts

CODE = """
import torch
from torch import nn


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return torch.fft.fft2(self.conv(x))
"""


class Fourier(nn.Module):
    """A spectrum, its square, and real numbers made of both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(self.conv(x))
        square = spectrum * spectrum
        found: Tensor = torch.view_as_real(square)[..., 1] + spectrum.abs()
        return found.flatten(1)


@pytest.fixture(scope="module")
def traced() -> cs.Trace:
    return cs.trace(Fourier(), torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(1)))


def test_what_reads_or_makes_complex_numbers_is_unsupported_and_all_else_is_proved(traced: cs.Trace) -> None:
    report = cs.verify(traced)
    complex_steps = {step.name for step in traced.all_steps if step.is_complex}
    assert {"fft_c2c", "mul", "abs", "view_as_real"} <= complex_steps
    for step in report.steps:
        assert step.finding == ("unsupported" if step.name in complex_steps else "proved"), step.name
    assert not report.proved


def test_they_are_not_explained_and_what_they_become_says_so(traced: cs.Trace) -> None:
    with pytest.raises(cs.UsageError, match="mul holds complex numbers, which are not explained"):
        cs.explain(traced, "mul", (0, 1, 2))
    why = cs.explain(traced, "abs", (0, 1, 2))
    assert (why.status, why.raw) == ("unsupported", None)
    assert "no rule explains 'abs' of complex numbers, which reads fft_c2c" in str(why)


def test_their_parts_are_named_where_they_are(traced: cs.Trace) -> None:
    why = cs.explain(traced, "select", (0, 2, 3))
    assert why.proved
    assert "view_as_real (0, 2, 3, 1)" in str(why)
    origin = traced.origin("select", "self", (0, 0, 2, 3, 1))
    assert (origin.name, origin.cell) == ("view_as_real", (0, 0, 2, 3, 1))


def test_no_number_is_said_to_be_made_of_pixels_that_it_came_from_by_complex_ones(traced: cs.Trace) -> None:
    for step in ("abs", "flatten"):
        cell = (0, 1, 2) if step == "abs" else (3,)
        with pytest.raises(
            cs.UsageError, match=r"is a (abs|select|view_as_real).*which has no vector-Jacobian product"
        ):
            cs.explain(traced, step, cell).to_input()
    assert cs.explain(traced, "conv", (0, 1, 2)).to_input().checks


def test_a_difference_of_complex_numbers_has_the_size_of_a_complex_number(traced: cs.Trace) -> None:
    other = cs.trace(Fourier(), torch.ones(1, 8, 9))
    found = cs.difference(traced, other)
    apart = other["mul"].output.astype(complex) - traced["mul"].output
    np.testing.assert_array_equal(found.cells("mul"), apart)
    assert found["mul"].largest == np.abs(apart).max()
    assert found["mul"].rms == pytest.approx(math.sqrt((np.abs(apart) ** 2).mean()))


def test_pictures_show_magnitudes_and_say_so(traced: cs.Trace) -> None:
    figure = cs.plot.maps(traced, steps=["mul"])
    np.testing.assert_array_equal(drawn(figure, "mul[1]").get_array(), np.abs(traced["mul"].output[0, 1]).astype(float))
    assert "2×6×7, magnitudes" in texts(figure)


def test_the_table_of_steps_shows_magnitudes(convscope: Commands, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(CODE)
    (line,) = [one for one in convscope.said("trace", f"{path}:Fourier", "shapes:test/0").splitlines() if "fft" in one]
    assert line.count("|") == 4


def test_the_page_compares_and_shows_them() -> None:
    with page_of(Fourier(), np.random.default_rng(0).random((1, 8, 9), np.float32)) as page:
        start = page.get("session")["models"][0]["start"]
        base, moved = page.trace(start), page.trace(start, change={"right": 1})
        steps = {step["name"]: step["id"] for step in base["steps"]}
        changes = page.get(f"traces/{moved['id']}/difference", base=base["id"])["steps"]
        assert next(change for change in changes if change["name"] == "mul")["largest"] > 0
        apart = page.raw(f"traces/{moved['id']}/steps/{steps['mul']}/difference", base=base["id"])
        assert apart.shape == (2, 6, 7)
        assert "complex numbers" in page.get(f"traces/{base['id']}/steps/{steps['mul']}/explain", 400, cell="0,1,2")
