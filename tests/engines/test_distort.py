"""Images turned, moved, tinted and made noisy: what each setting does, and the same bits below Python."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from zoo_datasets.networks import augment, distort, kernels
from zoo_datasets.networks.augmentation import Augmentation, Distortion

KEY = f"{7:032x}"
MEAN, STD = (0.5, 0.4, 0.45), (0.25, 0.2, 0.3)
PUBLISHED = Distortion(
    translate=3.0, rotate=15.0, zoom=0.099, shear=3.0, brightness=0.2, contrast=(0.5, 1.5), hue=0.08,
    saturation=(0.3, 1.5), noise=0.03, mean=MEAN, std=STD,
)  # fmt: skip


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def scaled(raw: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> np.ndarray:
    m, s = (np.asarray(v, np.float32)[:, None, None] for v in (mean, std))
    return (raw - m) / s


def raw(images: np.ndarray) -> np.ndarray:
    return images * np.asarray(STD, np.float32)[:, None, None] + np.asarray(MEAN, np.float32)[:, None, None]


def ends(**fields: float) -> np.ndarray:
    """Draws of one image: the middle of every range but these; 1 is its upper end, 0 the lower."""
    u = np.full((1, 10), 0.5)
    for name, value in fields.items():
        u[0, getattr(distort, name)] = value
    return u


# ── places ──


def warped(images: np.ndarray, d: Distortion, fill: float = 0.0, **fields: float) -> np.ndarray:
    return distort._warped(images, d, np.asarray([fill], np.float32), ends(**fields))


def test_in_the_middle_of_every_range_nothing_moves() -> None:
    images = pixels(1, 3, 6, 9)
    np.testing.assert_array_equal(warped(images, PUBLISHED), images)


def test_a_translation_moves_by_pixels_and_parts_of_them_with_black_behind() -> None:
    images = pixels(1, 2, 5, 6)
    moved = warped(images, Distortion(translate=2.0), -1.5, COLUMN=1.0, ROW=0.0)  # right by 2 and up by 2
    np.testing.assert_array_equal(moved[:, :, :3, 2:], images[:, :, 2:, :4])
    assert (moved[:, :, 3:] == -1.5).all()
    assert (moved[:, :, :, :2] == -1.5).all()
    half = warped(images, Distortion(translate=0.5), 9.0, COLUMN=1.0)
    np.testing.assert_allclose(half[..., 1:], (images[..., 1:] + images[..., :-1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(half[..., 0], (images[..., 0] + 9.0) / 2, rtol=1e-6)


@pytest.mark.parametrize(("reach", "end", "turns"), [(90.0, 1.0, 1), (90.0, 0.0, -1), (180.0, 1.0, 2)])
def test_a_quarter_turn_is_a_quarter_turn(reach: float, end: float, turns: int) -> None:
    images = pixels(1, 3, 7, 7)
    turned = warped(images, Distortion(rotate=reach), ROTATE=end)
    clockwise = np.rot90(images, -turns, axes=(2, 3))
    np.testing.assert_array_equal(turned, clockwise)


@pytest.mark.parametrize(
    ("d", "fields"),
    [
        (Distortion(rotate=20.0), {"ROTATE": 0.9}),
        (Distortion(zoom=0.3), {"ZOOM": 0.0}),
        (Distortion(zoom=0.3), {"ZOOM": 1.0}),
        (Distortion(shear=25.0), {"SHEAR": 0.2}),
        (PUBLISHED, {"ROTATE": 0.8, "ZOOM": 0.1, "SHEAR": 0.9, "ROW": 0.3, "COLUMN": 0.7}),
    ],
)
def test_an_affine_map_is_scipys(d: Distortion, fields: dict[str, float]) -> None:
    """Another implementation of the reading, and the matrices multiplied here."""
    image = pixels(1, 1, 16, 21)
    u = ends(**fields)[0]
    angle, slant = np.deg2rad((2 * u[distort.ROTATE] - 1) * d.rotate), np.deg2rad((2 * u[distort.SHEAR] - 1) * d.shear)
    zoom = 1 + (2 * u[distort.ZOOM] - 1) * d.zoom
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # x right, y down
    forward = np.array([[1, np.tan(slant)], [0, 1]]) @ (zoom * np.eye(2)) @ turn
    back = np.linalg.inv(forward)[::-1, ::-1]  # rows, columns
    middle = np.array([15, 20]) / 2
    move = np.array([(2 * u[distort.ROW] - 1) * d.translate, (2 * u[distort.COLUMN] - 1) * d.translate])
    expected = ndimage.affine_transform(
        image[0, 0].astype(np.float64), back, middle - back @ middle - move, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(warped(image, d, **fields)[0, 0], expected, atol=2e-3)  # places are whole 2⁻¹⁶ pixels


# ── colors ──


def colored(images: np.ndarray, d: Distortion, **fields: float) -> np.ndarray:
    return raw(distort._colored(scaled(images), d, ends(**fields), KEY, 0))


def with_scale(**fields: object) -> Distortion:
    return Distortion(**fields, mean=MEAN, std=STD)  # type: ignore[arg-type]


def test_brightness_is_added_and_ends_at_black_and_white() -> None:
    images = pixels(1, 3, 4, 4)
    brighter = colored(images, with_scale(brightness=0.2), BRIGHTNESS=1.0)
    np.testing.assert_allclose(brighter, np.minimum(images + 0.2, 1), atol=1e-6)
    darker = colored(images, with_scale(brightness=0.2), BRIGHTNESS=0.0)
    np.testing.assert_allclose(darker, np.maximum(images - 0.2, 0), atol=1e-6)


@pytest.mark.parametrize(("end", "factor"), [(0.0, 0.5), (1.0, 1.5)])
def test_contrast_is_about_each_channels_mean(end: float, factor: float) -> None:
    images = pixels(1, 3, 8, 8)
    found = colored(images, with_scale(contrast=(0.5, 1.5)), CONTRAST=end)
    mean = images.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(found, ((images - mean) * factor + mean).clip(0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("hue", "saturation", "fields"),
    [
        (0.08, (1.0, 1.0), {"HUE": 1.0}), (0.5, (1.0, 1.0), {"HUE": 0.1}), (0.0, (0.3, 1.5), {"SATURATION": 0.0}),
        (0.0, (0.3, 1.5), {"SATURATION": 1.0}), (0.3, (0.3, 1.5), {"HUE": 0.2, "SATURATION": 0.9}),
    ],
)  # fmt: skip
def test_hue_and_saturation_are_those_of_colorsys(
    hue: float, saturation: tuple[float, float], fields: dict[str, float]
) -> None:
    images = pixels(1, 3, 6, 6)
    images[0, :, 0, 0], images[0, :, 0, 1] = 0.0, 0.7  # black and gray have no hue
    images[0, :, 0, 2], images[0, :, 0, 3] = (0.4, 0.4, 0.1), (0.1, 0.6, 0.6)
    found = colored(images, with_scale(hue=hue, saturation=saturation), **fields)
    turn = (2 * fields.get("HUE", 0.5) - 1) * hue
    factor = saturation[0] + (saturation[1] - saturation[0]) * fields.get("SATURATION", 0.5)
    for row in range(6):
        for column in range(6):
            h, s, v = colorsys.rgb_to_hsv(*images[0, :, row, column].tolist())
            expected = colorsys.hsv_to_rgb((h + turn) % 1, min(s * factor, 1), v)
            np.testing.assert_allclose(found[0, :, row, column], expected, atol=2e-6)


def test_noise_has_a_standard_deviation_of_its_own_in_each_image() -> None:
    images = np.full((200, 1, 12, 12), 0.5, np.float32)
    d = Distortion(noise=0.1, mean=(0.5,), std=(0.25,))
    added = distort.apply(scaled(images, (0.5,), (0.25,)), d, (), KEY, 3) * 0.25
    spread = added.std(axis=(1, 2, 3))
    np.testing.assert_allclose(spread, 0.1 * distort.draws(KEY, 3, 200)[:, distort.NOISE], atol=0.02)
    assert spread.min() < 0.02
    assert spread.max() > 0.08
    assert abs(added.mean()) < 0.005


def test_draws_fill_their_range_and_differ_by_sample_step_and_setting() -> None:
    u = distort.draws(KEY, 5, 4000)
    assert u.min() >= 0
    assert u.max() < 1
    np.testing.assert_allclose(u.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(u.std(0), 12**-0.5, atol=0.02)
    assert abs(np.corrcoef(u.T) - np.eye(10)).max() < 0.08
    assert len(np.unique(u)) > 39_000
    assert not np.array_equal(u, distort.draws(KEY, 6, 4000))
    np.testing.assert_array_equal(u[:7], distort.draws(KEY, 5, 7))  # a short batch has the beginning


# ── below Python ──

CASES = {
    "as published": (Augmentation(fill=(-2.0, -1.0, -1.5), distortion=PUBLISHED), 3),
    "places": (Augmentation(fill=(-0.5,), distortion=Distortion(translate=5.5, rotate=180.0, zoom=0.9, shear=60.0)), 2),
    "far away": (Augmentation(fill=(0.25,), distortion=Distortion(translate=1000.0, rotate=1.0)), 1),
    "tints": (Augmentation(distortion=with_scale(hue=0.5, saturation=(0.0, 9.0))), 3),
    "bright": (Augmentation(distortion=with_scale(brightness=1.0, contrast=(0.0, 8.0), hue=0.2)), 3),
    "noise, one scale": (Augmentation(distortion=Distortion(noise=1.0, mean=(0.3,), std=(0.7,))), 2),
    "after moves, before noise": (
        Augmentation(2, 1, True, (0.1, 0.2, 0.3), (-1.0, 0.5, 2.0), PUBLISHED), 3,
    ),
}  # fmt: skip


@pytest.mark.skipif(kernels.missing() is not None, reason="needs the kernels")
@pytest.mark.parametrize("name", CASES)
def test_the_kernels_give_the_same_bits(name: str) -> None:
    augmentation, channels = CASES[name]
    for rows, columns, batch in ((9, 9, 17), (5, 12, 3), (1, 1, 2) if not augmentation.crop else (4, 2, 2)):
        images = pixels(batch, channels, rows, columns, seed=rows) * 3 - 1
        images[0] = 0.25  # no spread: no hue
        given = images.copy()
        found = augment.augmented(images, augmentation, KEY, 11)
        expected = augment.apply(images, augmentation, KEY, 11)
        assert found.tobytes() == expected.astype(np.float32).tobytes()
        assert not np.array_equal(found, images)
        np.testing.assert_array_equal(images, given)


def test_nothing_is_distorted_by_what_is_all_at_its_default() -> None:
    assert not Augmentation().any
    assert Distortion().numbers == ()
    assert Distortion(contrast=(0.5, 1.5)).colors
    assert not Distortion(contrast=(0.5, 1.5)).warps
    assert len(PUBLISHED.numbers) == 11
