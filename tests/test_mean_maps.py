"""Mean maps of a pattern's errors in every run."""

import numpy as np
from compared_runs import compared_pair, left, middle

from audit.compare.patterns_change import FoundPattern
from audit.compare.stored import read_patterns
from audit.report.comparison.compared_pictures import ComparedPictures
from audit.report.comparison.mean_maps import MeanMaps


def test_means_by_hand(tmp_path):
    comparison = compared_pair(tmp_path)
    images = comparison.images
    pictures = ComparedPictures(images)
    patterns = [read_patterns(images, run, is_later=run > 0) for run in (0, 1)]
    means = MeanMaps(patterns, images.y_pred)
    for position in range(comparison.n_images):
        means.add(position, pictures)
    before = means.mean(0, 1, 0)
    assert (before.n, before.of) == (12, 12)
    assert (before.cam == left()).all()
    # Six of them have a map for the same class after, all alike.
    after = means.mean(0, 1, 1)
    assert (after.n, after.of) == (6, 12)
    assert (after.cam == middle()).all()
    # The later run's pattern has none before.
    assert means.mean(1, 1, 0).cam is None
    assert (means.mean(1, 1, 0).n, means.mean(1, 1, 0).of) == (0, 2)
    assert means.mean(1, 1, 1).n == 2


class OnlyMaps:
    """Stands in for the pictures of one run."""

    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return 1

    def map(self, position, run, index):
        from audit.report.comparison.compared_pictures import StoredMap

        return StoredMap(self.maps[position], 1.0)


def test_maps_of_other_sizes_are_brought_to_the_first(tmp_path):
    # (255 + 0) / 2 and (0 + 255) / 2 are the same, so that both are at the peak.
    pattern = FoundPattern(1, "", "place", "", False, 2, np.array([0, 1]))
    means = MeanMaps([[pattern]], np.zeros((1, 2), np.int64))
    maps = [np.array([[255, 0]], np.uint8), np.array([[0, 0, 255, 255]], np.uint8)]
    for position in (0, 1):
        means.add(position, OnlyMaps(maps))
    assert means.mean(0, 1, 0).cam.tolist() == [[255, 255]]
