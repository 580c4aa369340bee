"""Thresholds and a watershed on bodies whose labels are known."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.baselines import (
    BASELINES,
    USUAL_ORDER,
    attenuation_order,
    multi_otsu_labels,
    otsu_labels,
    watershed_labels,
)
from tomoforge.segmentation.evaluation import compare_models, evaluate_case
from tomoforge.segmentation.metrics import class_metrics
from tomoforge.volumes import LABEL_NAMES

MU = {"background": 0.0, "loop": 2600.0, "crystal": 5200.0, "liquor": 6500.0}  # at 5 keV [1/m]


def nested(size: int = 48, noise: float = 100.0, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Volume [1/m] and labels of a crystal in a drop, with a thick plate of loop beside it."""
    labels = np.zeros((size,) * 3, np.uint8)
    z, y, x = np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 3, indexing="ij", sparse=True)
    labels[z**2 + y**2 + (x + 2) ** 2 < (0.4 * size) ** 2] = LABEL_NAMES["liquor"]
    labels[(abs(z + 1) < 0.22 * size) & (abs(y) < 0.2 * size) & (abs(x + 2) < 0.24 * size)] = LABEL_NAMES[
        "crystal"
    ]
    labels[:, :, -11:-3] = LABEL_NAMES["loop"]
    mu = np.zeros(4)
    for name, value in LABEL_NAMES.items():
        mu[value] = MU[name]
    volume = mu[labels]
    if blur:
        volume = ndimage.gaussian_filter(volume, blur)
    volume = volume + np.random.default_rng(1).normal(0, noise, labels.shape)
    return volume.astype(np.float32), labels


def test_multi_otsu_labels__finds_every_class_of_a_sharp_sample_in_its_place():
    volume, truth = nested()
    f1 = class_metrics(truth, multi_otsu_labels(volume), LABEL_NAMES).f1
    # Smoothing wraps the drop in a shell of crystal and that in one of loop, which it then lacks, a voxel each; a ball
    # of radius 19 has a seventh of its volume in its outermost voxel.
    assert f1.min() > 0.75
    # Far from surfaces nothing is left to chance: noise is 100 1/m before smoothing, classes are 1300 apart.
    labels = multi_otsu_labels(volume)
    for value in LABEL_NAMES.values():
        inside = ndimage.binary_erosion(truth == value, iterations=3, border_value=1)
        core = inside if inside.any() else ndimage.binary_erosion(truth == value, iterations=2)
        assert (labels[core] == value).all()


def test_watershed_labels__takes_away_the_shells_that_thresholds_make():
    volume, truth = nested(blur=0.7)
    thresholds = class_metrics(truth, multi_otsu_labels(volume), LABEL_NAMES).f1
    flooded = class_metrics(truth, watershed_labels(volume), LABEL_NAMES).f1
    assert (flooded > thresholds).all()
    assert (
        flooded.min() > 0.9
    )  # surfaces at the steepest µ, less than half a voxel off bodies of five and more


def test_watershed_labels__are_those_of_a_flood_of_everything():
    """Leaving out what is settled is a short cut, no other result."""
    from tomoforge.segmentation import baselines

    volume, _ = phantom(5, 30, noise=40.0)
    smoothed = baselines._smoothed(volume)
    classes = baselines._classes(smoothed, 4)
    markers = np.zeros(volume.shape, np.int32)
    for number in range(4):
        markers[baselines._inside(classes == number)] = number + 1
    whole = np.array([LABEL_NAMES[name] for name in USUAL_ORDER], np.uint8)[
        watershed(baselines._gradient(smoothed), markers) - 1
    ]
    # Where two floods meet on a plateau the order of the queue decides.
    assert np.mean(whole != watershed_labels(volume)) < 1e-3


def test_otsu_labels__is_the_threshold_of_scikit_image():
    volume, truth = nested()
    found = otsu_labels(volume)
    smoothed = ndimage.gaussian_filter(volume, 1.0, mode="nearest")
    expected = smoothed > threshold_otsu(smoothed)
    # Both take 256 bins, ours without the outermost 0.01 % of values: thresholds may lie a bin or two apart.
    assert np.mean((found > 0) != expected) < 2e-3
    assert set(np.unique(found)) == {0, LABEL_NAMES["crystal"]}
    assert class_metrics(truth, found, LABEL_NAMES).recall["crystal"] == 1


@pytest.mark.parametrize("order", list(itertools.permutations(USUAL_ORDER[1:])))
def test_baselines__order_names_the_classes(order):
    volume, _ = nested(size=24)
    usual = multi_otsu_labels(volume)
    renamed = multi_otsu_labels(volume, ("background", *order))
    for old, new in zip(USUAL_ORDER[1:], order, strict=True):
        np.testing.assert_array_equal(renamed == LABEL_NAMES[new], usual == LABEL_NAMES[old])


@pytest.mark.parametrize("name", BASELINES)
def test_baselines__do_not_depend_on_the_unit_of_the_volume_or_its_orientation(name):
    volume, _ = nested(size=24)
    found = BASELINES[name](volume, USUAL_ORDER)
    assert found.dtype == np.uint8
    # A factor of a power of two leaves every float as it is.
    np.testing.assert_array_equal(BASELINES[name](volume * 2**-10, USUAL_ORDER), found)
    turned = BASELINES[name](np.ascontiguousarray(volume.transpose(2, 0, 1)), USUAL_ORDER)
    # Sums in another order round otherwise, and a flood of another order decides its plateaus otherwise.
    assert np.mean(turned != found.transpose(2, 0, 1)) < 2e-3


@pytest.mark.parametrize("name", BASELINES)
def test_baselines__leave_the_volume_unchanged(name):
    volume, _ = nested(size=24)
    before = volume.copy()
    BASELINES[name](volume, USUAL_ORDER)
    np.testing.assert_array_equal(volume, before)


def test_baselines__two_classes_are_enough():
    volume, _ = nested(size=24)
    assert set(np.unique(watershed_labels(volume, ("background", "liquor")))) == {0, LABEL_NAMES["liquor"]}


def test_attenuation_order__is_read_from_a_labelled_case():
    volume, truth = nested()
    assert attenuation_order(volume, truth) == USUAL_ORDER
    assert attenuation_order(-volume, truth) == ("background", "liquor", "crystal", "loop")
    truth[truth == LABEL_NAMES["loop"]] = 0
    assert attenuation_order(volume, truth) == ("background", "crystal", "liquor")


def test_baselines__stand_in_one_table_with_a_model():
    volume, truth = nested(size=24)
    voxel_size = 1e-6
    models = {"perfect model": evaluate_case("a", truth, truth, LABEL_NAMES, voxel_size).scores}
    for name, baseline in BASELINES.items():
        prediction = baseline(volume, USUAL_ORDER)
        models[name] = evaluate_case("a", truth, prediction, LABEL_NAMES, voxel_size).scores
    table = compare_models(models)
    iou = table[(table["class"] == "mean") & (table["measure"] == "iou")].set_index("model")["mean"]
    assert list(iou.index) == ["perfect model", "Otsu", "multi-Otsu", "watershed"]
    assert iou["perfect model"] == 1 > iou["watershed"] > iou["multi-Otsu"] > iou["Otsu"] > 0


VOLUME = nested(size=12)[0]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("volume", "order", "message"),
    [
        (VOLUME[0], USUAL_ORDER, r"volume must be \(z, y, x\) floats"),
        (VOLUME.astype(int), USUAL_ORDER, "floats .*, got int64"),
        (np.where(VOLUME > 5000, np.nan, VOLUME), USUAL_ORDER, "volume must be finite"),
        (np.zeros((6, 6, 6), np.float32), USUAL_ORDER, "must differ"),
        (VOLUME, ("background",), "two or more"),
        (VOLUME, ("background", "ice"), "two or more of background, liquor"),
        (VOLUME, ("background", "loop", "loop"), "each once"),
        (VOLUME, ("loop", "background"), "begin with the background"),
        (VOLUME, "background", "two or more"),
    ],
)
def test_baselines__refuse_what_they_cannot_part(name, volume, order, message):
    with pytest.raises(InputError, match=message):
        BASELINES[name](volume, order)


def test_watershed_labels__refuse_a_volume_without_an_inside():
    tiny = np.random.default_rng(0).normal(0, 1, (1, 1, 4))  # four classes of one voxel each
    with pytest.raises(InputError, match="three voxels across"):
        watershed_labels(tiny)


def test_attenuation_order__refuses_other_shapes_labels_and_nothing_to_order():
    volume, truth = nested(size=12)
    with pytest.raises(InputError, match="shape of the volume"):
        attenuation_order(volume, truth[1:])
    with pytest.raises(InputError, match="got also"):
        attenuation_order(volume, truth + 9)
    with pytest.raises(InputError, match="besides the background"):
        attenuation_order(volume, np.zeros_like(truth))
