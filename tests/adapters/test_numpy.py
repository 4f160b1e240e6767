"""NumPy: the global random generator."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import numpy as np
from numpy.random import rand

np.random.seed({seed})

def draw(count=3):
    return [float(value) for value in np.random.random(count)]

def reseed():
    np.random.seed({seed})
    return [float(rand()), float(np.random.mtrand._rand.rand()), float(np.random.sample())]

def state():
    before = np.random.get_state()
    first = draw()
    np.random.set_state(before)
    return draw() == first

def replaced():
    np.random.set_bit_generator(np.random.PCG64({seed}))
    return type(np.random.get_bit_generator()).__name__
"""
RANDOM: Any = np.random


def alone(seed: int) -> list[float]:
    return [float(value) for value in np.random.RandomState(seed).random_sample(3)]


def test_the_global_generator_is_each_module_s_own(fleet: Fleet) -> None:
    RANDOM.seed(7)
    one, two = fleet.start("one", MODULE.format(seed=1)), fleet.start("two", MODULE.format(seed=2))
    draws = [one.call("draw", 1), [float(RANDOM.random())], two.call("draw", 1), one.call("draw", 2)]
    assert draws == [alone(1)[:1], alone(7)[:1], alone(2)[:1], alone(1)[1:]]
    assert [float(RANDOM.random()), float(RANDOM.rand())] == alone(7)[1:]
    assert [one.call("reseed"), two.call("reseed")] == [alone(1), alone(2)]
    assert one.call("state")
    assert [one.call("replaced"), type(RANDOM.get_bit_generator()).__name__] == ["PCG64", "MT19937"]
    assert pickle.loads(pickle.dumps(RANDOM.rand)) is RANDOM.rand

    again = fleet.start("one", MODULE.format(seed=3))
    assert [again.call("draw"), two.call("reseed")] == [alone(3), alone(2)]
    fleet.stop_all()
    RANDOM.seed(7)
    assert [float(RANDOM.random()) for _ in range(3)] == alone(7)
    assert RANDOM.rand.__self__ is RANDOM.mtrand._rand


SETTINGS = """
import numpy as np

np.set_printoptions(precision={number})
np.seterr(divide="{handling}")

def see():
    shown = str(np.array([1 / 3]))
    try:
        np.ones(1) / 0
    except FloatingPointError:
        return shown, "raised"
    return shown, "ignored"
"""


def test_printing_and_the_handling_of_errors_are_each_module_s_own(fleet: Fleet) -> None:
    with np.printoptions(precision=5), np.errstate(divide="ignore"):
        one = fleet.start("one", SETTINGS.format(number=2, handling="raise"))
        two = fleet.start("two", SETTINGS.format(number=3, handling="ignore"))
        assert [one.call("see"), two.call("see")] == [("[0.33]", "raised"), ("[0.333]", "ignored")]
        assert str(np.array([1 / 3])) == "[0.33333]"
        assert np.ones(1) / 0 == np.inf
        again = fleet.start("one", SETTINGS.format(number=4, handling="ignore"))
        assert [again.call("see"), two.call("see")] == [("[0.3333]", "ignored"), ("[0.333]", "ignored")]
        fleet.stop_all()
