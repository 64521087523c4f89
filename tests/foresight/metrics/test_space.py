"""What several measures share: the spectrum of a space, its points, and which of its rows are equal."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics.space import MANY, Space
from tests.foresight.metrics.planted import gaussians


def test_the_spectrum_of_many_narrow_rows_is_that_of_their_gram_matrix() -> None:
    (x,) = gaussians(MANY + 50, (6,))
    x[:, 5] = x[:, 0]  # of rank 5
    space = Space(x)
    values, vectors = space.spectrum
    want = np.linalg.eigvalsh(space.gram)[::-1]
    np.testing.assert_allclose(values, want[:5], rtol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(space.coordinates @ space.coordinates.T, space.gram, atol=1e-10)


@pytest.mark.parametrize("width", [3, 200])
def test_points_keep_every_inner_product_and_are_no_wider_than_needed(width: int) -> None:
    (x,) = gaussians(40, (width,))
    space = Space(x)
    np.testing.assert_allclose(space.points @ space.points.T, space.gram, atol=1e-9)
    assert space.points.shape[1] == min(width, 39)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 2, 100])
def test_equal_rows_have_equal_numbers_in_order_of_first_appearance(width: int, dtype: type) -> None:
    (x,) = gaussians(5, (width,))
    x = x.astype(dtype)
    assert Space(x).row_ids.tolist() == [0, 1, 2, 3, 4]
    x[3] = x[1]
    assert Space(x).row_ids.tolist() == [0, 1, 2, 1, 3]
    late = np.zeros_like(x[:3])
    late[1, -1], late[2, 0] = 1, -0.0
    assert Space(late).row_ids.tolist() == [0, 1, 0]
