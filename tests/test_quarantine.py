"""Images that kill are found one by one, and never touched again."""

import pytest

from audit.engines.quarantine import KILLS, Quarantine, SourceWithout


def test_a_quarantine_is_over_when_every_image_was_tried():
    quarantine = Quarantine((7, 3, 5))
    for image_id in (3, 7):
        quarantine.settle(image_id, killed=image_id == 7)
        assert not quarantine.is_over
    quarantine.settle(5, killed=True)
    assert quarantine.is_over
    assert quarantine.killers == {7: KILLS, 5: KILLS}


class Images:
    """A source that remembers what it was asked for."""

    listing = "the listing"
    pixel_range = (-1.0, 1.0)

    def __init__(self):
        self.asked = []

    def batches(self, image_ids, batch_size):
        self.asked.append((list(image_ids), batch_size))
        yield "a batch"

    def sized_batches(self, image_ids, batch_size):
        self.asked.append((list(image_ids), batch_size))
        yield "a sized batch"

    def why_unreadable(self, image_id):
        assert image_id != 3, "it must not be touched"
        return "torn" if image_id == 5 else None


@pytest.mark.parametrize(
    ("method", "found"), [("batches", "a batch"), ("sized_batches", "a sized batch")]
)
def test_an_image_that_kills_is_not_asked_for(method, found):
    images = Images()
    source = SourceWithout(images, {3: KILLS})
    assert list(getattr(source, method)((7, 3, 5), 2)) == [found]
    assert images.asked == [([7, 5], 2)]


def test_the_rest_is_as_it_was():
    source = SourceWithout(Images(), {3: KILLS})
    assert (source.listing, source.pixel_range) == ("the listing", (-1.0, 1.0))
    assert [source.why_unreadable(i) for i in (3, 5, 7)] == [KILLS, "torn", None]
