"""The stain space that the Augmenter jitters in."""

import numpy as np

# Optical densities (red, green, blue) of the two dyes of Romanowsky stains (Giemsa, Wright,
# May-Gruenwald): methylene blue and eosin, as measured by G. Landini for the Colour Deconvolution
# plugin (Landini, Martinelli and Piccinini 2021, https://doi.org/10.1093/bioinformatics/btaa847);
# the unmixing is Ruifrok and Johnston's (2001, Anal. Quant. Cytol. Histol. 23:291). The third row
# takes what neither dye explains: the direction at right angles to both.
_METHYLENE_BLUE = np.array([0.834750233, 0.513556283, 0.196330403])
_EOSIN = np.array([0.092789, 0.954111, 0.283111])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


STAINS = np.array([_unit(_METHYLENE_BLUE), _unit(_EOSIN), _unit(np.cross(_METHYLENE_BLUE, _EOSIN))])
UNMIX = np.linalg.inv(STAINS)


def stain_matrices(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return affine maps of optical density that scale and shift each stain's concentration.

    Parameters
    ----------
    scale, shift : ndarray of shape (n, 3)
        Factor and offset of each stain.

    Returns
    -------
    ndarray of shape (n, 3, 4)
        For columns: ``density_out = map[:, :3] @ density + map[:, 3]``.
    """
    mix = STAINS.T
    linear = np.einsum("ij,nj,jk->nik", mix, scale, UNMIX.T)
    return np.concatenate([linear, (shift @ STAINS)[:, :, None]], axis=2)
