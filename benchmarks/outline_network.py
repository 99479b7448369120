"""Train the network that draws the outlines of white cells, and write its weights.

Run: WBCCLF_DATA=... python benchmarks/outline_network.py [FILE]

It is trained on drawn cells, then on those of BCISC and a fifth of drawn ones; stain, light, focus,
scale and the shades of each part of a cell vary. Minutes on one core. FILE is the package's own
unless it is given.
"""

import sys
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from _data import DATA
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wbcclf import ImageLoader, make_blood_cells
from wbcclf._files import replacing
from wbcclf.cells._network import (
    FOLD,
    RAYS,
    REACH,
    STEPS,
    WEIGHTS,
    around,
    rays,
    samples,
)
from wbcclf.cells._picture import Picture
from wbcclf.cells._segment import segment
from wbcclf.cells._stain import read_stain

KEPT, KEPT_REACH = 104, 2.5  # samples a side of windows kept for training, as REACH
TURNS, BATCH, RATE = 1200, 24, 5e-3
ALTERED = 6  # altered copies of each BCISC picture that are trained on
DRAWN = 1200  # cells


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU; the rays close to a circle."""

    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=(0, 1), bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x):
        """Return features (n, after, rays, steps)."""
        x = torch.cat([x[:, :, -1:], x, x[:, :, :1]], dim=2)
        return F.relu(self.norm(self.conv(x)))


class OutlineNet(nn.Module):
    """The network that `wbcclf.cells._network` runs without PyTorch."""

    def __init__(self):
        super().__init__()
        self.top = nn.Sequential(Block(5 * FOLD**2, 24), Block(24, 24))
        self.bottom = nn.Sequential(Block(24, 48), Block(48, 48))
        self.up = Block(72, 24)
        self.head = nn.Conv2d(24, FOLD**2, 1)

    def forward(self, x):
        """Return log-odds (n, RAYS, STEPS) of the first five channels that `samples` gives."""
        top = self.top(F.pixel_unshuffle(x[:, :5], FOLD))
        bottom = self.bottom(F.max_pool2d(top, 2))
        top = self.up(torch.cat([top, F.interpolate(bottom, scale_factor=2)], 1))
        return F.pixel_shuffle(self.head(top), FOLD)[:, 0]


def weights_of(net):
    """Return the arrays that `redrawn` takes: each convolution with its normalisation in it."""
    convolutions = {"head": net.head} | {
        name: fuse_conv_bn_eval(block.conv, block.norm)
        for name, block in net.named_modules()
        if isinstance(block, Block)
    }
    return {
        f"{name}.{kind}": value.detach().float().contiguous().numpy()
        for name, convolution in convolutions.items()
        for kind, value in convolution.named_parameters()
    }


def found_by_stain(image, rough=False):
    """Return the view of a picture with the cells that the stain method finds; None without any."""
    picture = Picture(image)
    stain = read_stain(picture.sample, picture.light)
    view = stain and segment(picture[:, :], stain, rough)
    return view if view and view.cells else None


def altered(image, rng, stain=1.0, light=1.0, blur=1.0, noise=1.0):
    """Return a picture with stain, light, focus and noise (with JPEG) changed, each this much."""
    bright = np.percentile(image.reshape(-1, 3), 95, axis=0)
    density = np.log((bright + 1) / (image + 1.0))
    mixing = np.eye(3) + stain * rng.uniform(-0.15, 0.15, (3, 3))
    mixing *= np.exp(stain * rng.normal(0, 0.2, 3)) / mixing.sum(axis=0)
    density = np.maximum(density @ mixing, -0.2)
    density = np.sign(density) * np.abs(density) ** (1 + stain * rng.uniform(-0.15, 0.2))
    bright += light * (rng.uniform(130, 245) * np.exp(rng.normal(0, 0.1, 3)) - bright)
    angle, fall = rng.uniform(0, 2 * np.pi), light * rng.uniform(0, 0.25)
    y, x = (np.linspace(-0.5, 0.5, side) for side in image.shape[:2])
    bright = bright * (1 + fall * np.add.outer(np.sin(angle) * y, np.cos(angle) * x))[..., None]
    picture = np.exp(-density) * bright
    sigma = blur * rng.uniform(0, 1.6) * min(image.shape[:2]) / 256
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture += noise * rng.uniform(0, 6) * rng.standard_normal(picture.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(100 - noise * rng.uniform(0, 45))]
    _, code = cv2.imencode(
        ".jpg", np.clip(np.rint(picture[..., ::-1]), 0, 255).astype(np.uint8), quality
    )
    return np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])


def kept_windows(image, truth):
    """Return a list of windows (7, KEPT, KEPT), float16: channels and truth of each cell."""
    windows = []
    view = found_by_stain(image)
    _, parts = cv2.connectedComponents(truth.astype(np.uint8))
    for cell in view.cells if view else ():
        top, left, bottom, right = cell.bbox
        share = np.bincount(parts[top:bottom, left:right][cell.nucleus])
        if share.argmax() == 0:  # no cell: truth does not say what is right
            continue
        centre, reach = around(cell)
        axis = np.linspace(-1, 1, KEPT, dtype=np.float32) * np.float32(reach * KEPT_REACH / REACH)
        xs, ys = np.meshgrid(np.float32(centre[0]) + axis, np.float32(centre[1]) + axis)
        seen = samples(view, cell, (xs, ys), reach)
        own = np.where(parts == share.argmax(), 255, 0).astype(np.uint8)
        own = cv2.remap(own, xs, ys, cv2.INTER_LINEAR)[None] / 255
        windows.append(np.concatenate([seen, own]).astype(np.float16))
    return windows


def drawn_cells(n_cells, seed):
    """Return drawn pictures of five classes and masks, of several sizes."""
    pictures, masks = [], []
    for number, size in enumerate((128, 192, 256)):
        cells = make_blood_cells(
            n_cells // 3, image_size=size, random_state=3 * seed + number, return_masks=True
        )
        pictures.extend(cells.images)
        masks.extend(cells.cell_masks)
    return pictures, masks


def batch_of(windows, rng):
    """Return channels (BATCH, 6, RAYS, STEPS) and truth of windows, turned, scaled and changed."""
    channels = np.empty((BATCH, 7, RAYS, STEPS), np.float32)
    for row, number in enumerate(rng.randint(len(windows), size=BATCH)):
        window = windows[number].astype(np.float32)
        if rng.rand() < 0.3:
            window = beside(window, windows[rng.randint(len(windows))].astype(np.float32), rng)
        reach = REACH / KEPT_REACH * KEPT / 2 * np.exp(rng.uniform(-0.2, 0.2))
        centre = KEPT / 2 - 0.5 + rng.normal(0, 0.02 * KEPT, 2)
        grid = rays(centre, reach, rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]))
        for plane in range(7):
            channels[row, plane] = cv2.remap(
                window[plane], *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        shades = channels[row, :3]
        # Each laboratory has its own shades of cytoplasm, nuclei and all else; some are very pale.
        nucleus, cell = channels[row, 3], np.maximum(channels[row, 6], channels[row, 3])
        pale = np.log(rng.uniform(0.3, 1)) if rng.rand() < 0.3 else rng.normal(0, 0.2)
        for part, depth in (
            (cell - nucleus, pale),
            (nucleus, rng.normal(0, 0.15)),
            (1 - cell, rng.normal(0, 0.15)),
        ):
            factor = np.exp(depth + rng.normal(0, 0.1, (3, 1, 1)))
            shades *= 1 + part * (factor - 1)
        mixing = (np.eye(3) + rng.normal(0, 0.06, (3, 3))) * np.exp(rng.normal(0, 0.15))
        shades[:] = np.tensordot(mixing, shades, 1) + rng.normal(0, 0.03, (3, 1, 1))
        shades += rng.uniform(0, 0.08) * rng.standard_normal(shades.shape)
    return torch.from_numpy(channels[:, :6]), torch.from_numpy(channels[:, 6])


def beside(window, other, rng):
    """Return a window with the cell of another one pasted so that it touches its own cell."""
    move = np.float32([[1, 0, 0], [0, 1, 0]])
    move[:, :2] *= rng.choice([-1, 1], 2)[:, None]
    move[:, 2] = (KEPT - 1) * (move[:, :2].sum(1) < 0)
    angle, own = rng.uniform(0, 2 * np.pi), window[6] > 0.5
    towards = np.float32([np.cos(angle), np.sin(angle)])
    for distance in np.arange(0.2, 0.8, 0.04) * KEPT:
        shifted = move.copy()
        shifted[:, 2] += distance * towards
        mask = cv2.warpAffine(other[6], shifted, (KEPT, KEPT)) > 0.5
        if (mask & own).sum() < 0.03 * own.sum():
            break
    mask &= ~own
    for plane in range(3):
        window[plane][mask] = cv2.warpAffine(other[plane], shifted, (KEPT, KEPT))[mask]
    return window


def trained(windows, net=None, seed=0):
    """Return a network trained on windows: a new one, or one that has been trained before."""
    torch.manual_seed(seed)
    net = (net or OutlineNet()).train().to(memory_format=torch.channels_last)
    rng = np.random.RandomState(seed)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, TURNS)
    # A sample of a ray stands for an area that grows with the radius.
    area = (torch.arange(STEPS) + 0.5) / (STEPS / 2)
    start, losses = time.perf_counter(), []
    for _ in range(TURNS):
        channels, truth = batch_of(windows, rng)
        weight = area * (channels[:, 4] < 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            odds = net(channels.contiguous(memory_format=torch.channels_last)).float()
        loss = (F.binary_cross_entropy_with_logits(odds, truth, reduction="none") * weight).mean()
        share = odds.sigmoid()
        common = (share * truth * weight).sum((1, 2))
        total = ((share + truth) * weight).sum((1, 2))
        loss = loss + (1 - 2 * common / (total + 1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    print(
        f"{len(windows)} windows, loss {np.mean(losses[-50:]):.4f}, "
        f"{time.perf_counter() - start:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return net.eval()


def bcisc():
    """Return pictures, masks, classes and slide numbers of BCISC, in the order of names."""
    paths = sorted((DATA / "bcisc" / "masks").iterdir())
    files = [str(DATA / "bcisc" / "images" / f"{path.stem}.jpg") for path in paths]
    truths = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in paths]
    names = [path.stem.replace("-", "_").split("_") for path in paths]
    classes, slides = np.array([n[0] for n in names]), np.array([int(n[1]) for n in names])
    return ImageLoader(256).transform(files), truths, classes, slides


def bcisc_windows():
    """Return a list of windows for each picture of BCISC: as it is, and altered."""
    images, truths, _, _ = bcisc()
    rng = np.random.RandomState(0)
    windows = []
    for image, truth in zip(images, truths, strict=True):
        each = kept_windows(image, truth)
        for _ in range(ALTERED):
            side = int(256 * np.exp(rng.uniform(np.log(0.4), np.log(1.1))))
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(truth.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
            each += kept_windows(altered(small, rng), mask)
        windows.append(each)
    return windows


def drawn_windows(seed=1):
    """Return a list of windows of drawn cells, seven in ten of them altered."""
    rng = np.random.RandomState(seed)
    windows = []
    for image, mask in zip(*drawn_cells(DRAWN, seed), strict=True):
        windows += kept_windows(altered(image, rng) if rng.rand() < 0.7 else image, mask)
    return windows


if __name__ == "__main__":
    torch.set_num_threads(1)
    drawn = drawn_windows()
    windows = [window for each in bcisc_windows() for window in each] + drawn[::2]
    net = trained(windows, trained(drawn))
    with replacing(sys.argv[1] if len(sys.argv) > 1 else WEIGHTS) as path:
        np.savez(path, **weights_of(net))
