"""Options: declared once, defaults < TOML < given values, messages that name the option."""

import re
from pathlib import Path
from typing import Any

import pytest

from audit.config import AuditConfig, make_config, option_name
from audit.errors import ConfigError


def write_toml(folder: Path, text: str) -> Path:
    path = folder / "audit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(options: dict[str, Any], toml: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        make_config(options, toml)
    return str(caught.value)


def test_every_field_is_an_option_with_a_default_and_a_help_text():
    defaults = make_config({})
    for name, field in AuditConfig.model_fields.items():
        assert not field.is_required()
        assert field.description and field.description[0].isupper()
        assert option_name(name) == "--" + name.replace("_", "-")
        assert make_config({name: getattr(defaults, name)}) == defaults


def test_defaults_are_what_image_dataset_from_directory_feeds():
    config = make_config({})
    assert (config.scaling, config.aspect, config.interpolation) == ("none", "stretch", "bilinear")
    assert (config.threshold, config.head, config.method) == (0.5, "auto", "gradcam")
    assert config.trust_model_code is False


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        make_config({}).threshold = 0.1


def test_given_values_win_over_toml_and_toml_over_defaults(tmp_path):
    toml = write_toml(tmp_path, 'scaling = "0-1"\nthreshold = 0.25\nbatch-size = 8\n')
    config = make_config({"threshold": 0.75}, toml)
    assert (config.scaling, config.threshold, config.batch_size) == ("0-1", 0.75, 8)
    assert config.seed == 0


@pytest.mark.parametrize("key", ["label-regex", "label_regex"])
def test_toml_keys_may_be_spelt_with_dash_or_underscore(tmp_path, key):
    toml = write_toml(tmp_path, f"{key} = '^(cat|dog)'\n")
    assert make_config({}, toml).label_regex == "^(cat|dog)"


@pytest.mark.parametrize(
    "value", ["cats,dogs", " cats , dogs ", ["cats", "dogs"], ("cats", "dogs")]
)
def test_classes_are_split_and_keep_their_order(value):
    assert make_config({"classes": value}).classes == ("cats", "dogs")


def test_class_order_is_not_alphabetical():
    assert make_config({"classes": "dogs,cats"}).classes == ("dogs", "cats")


def test_classes_from_a_toml_list(tmp_path):
    toml = write_toml(tmp_path, 'classes = ["hot, dog", "not"]\n')
    assert make_config({}, toml).classes == ("hot, dog", "not")


@pytest.mark.parametrize("value", ["cats", "", "cats,", "cats,cats", "a,,b", ["a", "a"], []])
def test_classes_must_be_two_or_more_different_names(value):
    text = refusal({"classes": value})
    assert text.startswith("`--classes` cannot be used: give at least two different names")
    assert "Received: " in text


@pytest.mark.parametrize("value", [5, [1, 2], [["a"], ["b"]], {"a": 1}, True])
def test_classes_that_are_not_names_are_refused(value):
    assert refusal({"classes": value}).startswith("`--classes` cannot be used: ")


@pytest.mark.parametrize(
    ("name", "value", "received"),
    [
        ("threshold", 0, "0"),
        ("threshold", 1, "1"),
        ("threshold", float("nan"), "nan"),
        ("threshold", "half", "'half'"),
        ("scaling", "0..1", "'0..1'"),
        ("aspect", "fit", "'fit'"),
        ("interpolation", "bicubic", "'bicubic'"),
        ("head", "sigmoids", "'sigmoids'"),
        ("method", "guided", "'guided'"),
        ("controls", -1, "-1"),
        ("batch_size", 0, "0"),
        ("explain_batch_size", 0, "0"),
        ("memory", "some", "'some'"),
        ("memory", "0GB", "'0GB'"),
        ("memory", "150%", "'150%'"),
        ("keep_maps", "none", "'none'"),
        ("shard_size", 0, "0"),
        ("explain_shard_size", 1.5, "1.5"),
        ("max_unreadable", -1, "-1"),
        ("fail_under", ["acuracy=0.9"], "['acuracy=0.9']"),
        ("fail_under", {"accuracy": 90}, "{'accuracy': 90}"),
        ("seed", -1, "-1"),
        ("trust_model_code", "perhaps", "'perhaps'"),
        ("label_regex", "(", "'('"),
        ("label_regex", "^cat", "'^cat'"),
        ("positive", 3, "3"),
    ],
)
def test_a_bad_value_is_refused_with_the_option_and_the_value(name, value, received):
    text = refusal({name: value})
    assert text.startswith(f"`{option_name(name)}` cannot be used: ")
    assert text.endswith(f"Received: {received}.")
    assert "Value error" not in text


def test_the_choices_are_named():
    text = refusal({"scaling": "0..1"})
    for choice in ("none", "0-1", "-1-1", "imagenet-caffe", "imagenet-torch"):
        assert f"'{choice}'" in text


def test_an_unknown_option_is_refused_and_the_known_ones_are_listed():
    text = refusal({"scailing": "0-1"})
    assert text.startswith("There is no option `--scailing`. The options are: --classes, ")
    assert re.findall(r"--[a-z-]+", text)[1:] == [option_name(n) for n in AuditConfig.model_fields]


def test_an_unknown_key_in_toml_is_refused_even_in_a_table(tmp_path):
    assert "no option `--audit`" in refusal({}, write_toml(tmp_path, '[audit]\nscaling = "0-1"\n'))


@pytest.mark.parametrize("content", [b"scaling = ", b"a = 1\na = 2", b"scaling = '\xff'"])
def test_a_broken_toml_file_is_refused(tmp_path, content):
    path = tmp_path / "audit.toml"
    path.write_bytes(content)
    text = refusal({}, path)
    assert text.startswith(f"`--config {path}` cannot be read. Received: ")
    assert text.endswith("Give a TOML file with lines such as `threshold = 0.5`.")


def test_a_missing_toml_file_is_refused(tmp_path):
    assert "No such file" in refusal({}, tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("fusion", "method", "says"),
    [
        ("consensus", "hirescam", "consensus needs `--method gradcam`, not hirescam"),
        ("mean", "occlusion", "no layers to join"),
    ],
)
def test_a_fusion_that_a_method_cannot_have_is_refused(fusion, method, says):
    with pytest.raises(ConfigError, match=f"`--fusion` cannot be used: .*{says}"):
        make_config({"fusion": fusion, "method": method})
    assert make_config({"fusion": "mean", "method": "hirescam"}).fusion == "mean"
