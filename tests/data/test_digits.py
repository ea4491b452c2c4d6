from collections import Counter

import numpy as np
import torch
from sklearn.datasets import load_digits

from normattn.data import open_data


def test_the_digits_are_split_once_and_for_all_with_equal_classes():
    data = open_data("digits")
    assert (len(data.train), len(data.val)) == (1438, 359)
    assert (data.channels, data.size, data.classes) == (1, (8, 8), tuple("0123456789"))
    whole = np.bincount(load_digits().target)
    assert np.abs(data.val.labels.bincount().numpy() - whole / 5).max() <= 2
    assert data.fingerprint == open_data("digits").fingerprint


def test_every_scan_is_in_one_split_with_ink_from_0_to_16_as_0_to_255():
    data = open_data("digits")
    images = torch.cat([data.train.images, data.val.images])
    found = Counter(image.numpy().tobytes() for image in images)
    scans = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    assert found == Counter(scan.tobytes() for scan in scans)


def test_digits_are_never_mirrored_by_default():
    assert open_data("digits").default_augment == "pad-crop"
