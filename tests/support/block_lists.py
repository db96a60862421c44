"""Lists of blocks: any that a form can write, and any that a stranger can send."""

from typing import Any

from hypothesis import strategies as st

from convscope.blocks import KINDS
from convscope.blocks.kinds import KindSetting

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
)
"""Values that few settings take."""


def _value(setting: KindSetting) -> st.SearchStrategy[Any]:
    if setting.kind == "flag":
        return st.booleans()
    if setting.kind == "number":
        return st.floats(setting.low, setting.high)
    return st.integers(int(setting.low), min(int(setting.high), 9))


def _block(name: str, *, wrong: bool) -> st.SearchStrategy[dict[str, Any]]:
    settings = {s.name: st.one_of(_value(s), WRONG) if wrong else _value(s) for s in KINDS[name].settings}
    return st.fixed_dictionaries({"block": st.just(name)}, optional=settings)


SOUND = st.lists(st.sampled_from(list(KINDS)).flatmap(lambda name: _block(name, wrong=False)), max_size=7)
"""Blocks within their bounds, which may still not fit one another."""
NESTED = st.recursive(WRONG, lambda part: st.lists(part, max_size=3), max_leaves=6)
HOSTILE = st.one_of(
    WRONG,
    st.lists(
        st.one_of(
            WRONG,
            st.sampled_from(list(KINDS)).flatmap(lambda name: _block(name, wrong=True)),
            st.fixed_dictionaries(
                {"block": st.sampled_from([*KINDS, "softmax", "__import__"])},
                optional={"values": st.one_of(WRONG, st.fixed_dictionaries({"weight": NESTED, "bias": NESTED}))},
            ),
        ),
        max_size=5,
    ),
    st.integers(65, 500).map(lambda length: [{"block": "relu"}] * length),
)
"""Anything at all."""
