"""Maps that no network has a part in: their laws, and edges by hand."""

import pytest
import torch

from saliency_lib import landmarks


@pytest.mark.parametrize(
    "law,most,fourth", [("normal", 6, 3), ("truncated normal", 2.28, 2.366), ("uniform", 3**0.5, 1.8)]
)
def test_random_maps_have_mean_zero_deviation_one_and_their_law(law, most, fourth):
    maps = landmarks.random_maps(law, (4, 1, 200, 200), 3)
    assert abs(maps.mean()) < 0.01 and abs(maps.std() - 1) < 0.01
    assert maps.abs().max() <= most and maps.pow(4).mean().item() == pytest.approx(fourth, rel=0.05)
    assert torch.equal(maps, landmarks.random_maps(law, (4, 1, 200, 200), 3))


def test_an_unknown_law_is_told():
    with pytest.raises(ValueError, match="unknown law 'cauchy'; one of 'normal'"):
        landmarks.random_maps("cauchy", (1, 1, 8, 8), 0)


def test_edges_are_what_two_kernels_find():
    kernel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]) / 4
    pictures = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    both = torch.nn.functional.conv2d(pictures, torch.stack([kernel, kernel.T])[:, None])
    found = landmarks.sobel(pictures)
    assert found.shape == pictures.shape and found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0, 1:-1, 1:-1], (both.square().sum(1) / 2).sqrt())
