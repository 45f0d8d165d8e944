import pytest
import torch
from torch import nn

from kaf.influence import influence, share_within


def convolution():
    """A 3 x 3 convolution with two channels of known weights."""
    layer = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.arange(9.0).view(1, 3, 3), torch.ones(1, 3, 3)]))
    return layer


def test_of_a_convolution_it_is_the_norm_of_its_weights():
    found = influence(convolution(), torch.randn(1, 1, 6, 8), (5, 2))
    expected = torch.zeros(6, 8)
    expected[1:4, 4:7] = (torch.arange(9.0).view(3, 3).square() + 1).sqrt()
    torch.testing.assert_close(found, expected)


def test_the_image_and_the_gradients_of_the_network_stay_as_they_are():
    layer, image = convolution(), torch.randn(1, 1, 6, 8)
    before = image.clone()
    influence(layer, image, (0, 0))
    assert torch.equal(image, before) and not image.requires_grad and layer.weight.grad is None


@pytest.mark.parametrize("at", [(8, 0), (0, 6), (-1, 0)])
def test_a_pixel_outside_is_refused(at):
    with pytest.raises(ValueError, match="no pixel .* in an image of 8 x 6 pixels"):
        influence(convolution(), torch.zeros(1, 1, 6, 8), at)


def test_share_within_a_radius():
    values = torch.ones(5, 7)
    found = share_within(values, (3, 2), torch.tensor([0.0, 1.0, 1.5, 10.0]))
    torch.testing.assert_close(found, torch.tensor([1, 5, 9, 35]) / 35)
    corner = torch.zeros(5, 7)
    corner[0, 6] = 2  # (x, y) = (6, 0), a distance of 5 from (3, 4)
    assert share_within(corner, (3, 4), torch.tensor([4.9, 5.0])).tolist() == [0, 1]
