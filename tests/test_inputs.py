"""What an audit is made of is looked at only as far as it is needed."""

from pathlib import Path

import pytest

from audit.config import make_config
from audit.errors import ConfigError
from audit.inputs import Inputs, positive_index


def test_the_positive_class_is_the_second_one_unless_named():
    assert positive_index(("cats", "dogs"), None) == 1
    assert positive_index(("cats", "dogs"), "cats") == 0
    assert positive_index(("a", "b", "c"), None) is None


@pytest.mark.parametrize("names", [("cats", "dogs"), ("a", "b", "c")])
def test_a_positive_class_that_cannot_be_is_refused(names):
    with pytest.raises(ConfigError, match="--positive birds"):
        positive_index(names, "birds")


def test_a_path_is_called_by_its_name_and_a_dataset_a_dataset():
    assert Inputs("m.keras", "some/where/val", make_config({})).data_name == "val"
    assert Inputs("m.keras", Path("images.csv"), make_config({})).data_name == "images.csv"
    assert Inputs("m.keras", object(), make_config({})).data_name == "dataset"
