import pytest
import torch
from monai.networks.nets import SwinUNETR

from kaf.baselines import SwinUNet
from kaf.networks import parameter_count


def test_sides_that_are_no_multiples_of_32_are_padded_by_the_border():
    torch.manual_seed(0)
    network, image = SwinUNet(4, 6).eval(), torch.randn(1, 1, 48, 80)
    with torch.no_grad():
        found = network(image)
        assert found.shape == (1, 4, 48, 80)
        row, column = image[..., -1:, :], image[..., -1:]
        padded = torch.cat([image, row.expand(-1, -1, 16, -1)], 2)
        padded = torch.cat([padded, torch.cat([column, column[..., -1:, :].expand(-1, -1, 16, -1)], 2)
                            .expand(-1, -1, -1, 16)], 3)
        torch.testing.assert_close(found, network.network(padded)[..., :48, :80])
        whole = torch.randn(1, 1, 64, 64)
        assert torch.equal(network(whole), network.network(whole))


@pytest.mark.parametrize("width, features", [(6, 12), (12, 24), (16, 24), (32, 48)])
def test_features_follow_the_width(width, features):
    theirs = SwinUNETR(1, 4, feature_size=features, spatial_dims=2)
    assert parameter_count(SwinUNet(4, width)) == parameter_count(theirs)


@pytest.mark.parametrize("height, width", [(32, 32), (16, 32)])
def test_images_of_one_deepest_pixel_are_refused(height, width):
    network = SwinUNet(4, 6)
    with pytest.raises(ValueError, match=f"more than 32 px, got {height} x {width}; choose a larger size"):
        network(torch.randn(2, 1, height, width))
    assert network(torch.randn(2, 1, 48, 32)).shape == (2, 4, 48, 32)
