"""What every module claims to learn: its task, and what counts as learned."""

import keras
import numpy as np
import pytest

from keras_nalu.experiments.modules import Claim, claims
from keras_nalu.layers import LAYERS


def test_every_operation_is_a_claim():
    for name, layer in LAYERS.items():
        assert [claim.operation for claim in claims(name)] == list(layer.operations)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="trains no populations")
@pytest.mark.parametrize("claim", [Claim("NAC", "add"), Claim("NSR", "equal")], ids=str)
def test_what_is_drawn_and_what_is_judged(claim):
    population = claim.population()
    x, y = claim.extrapolation()
    np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(claim.answer(x)))
    assert 0 < np.mean(y) != 1
    solved = claim.solved(population)
    assert solved.shape == (claim.seeds,)
    assert not solved.all()  # a comparison may be right by chance before training
