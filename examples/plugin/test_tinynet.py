"""The test that every backbone needs."""

from wbcclf.backbones import check_backbone, get_backbone


def test_tinynet_is_a_backbone():
    """The name is found through the entry point, so this needs the package installed."""
    check_backbone(get_backbone("tinynet"))
