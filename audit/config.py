"""Every option of an audit, declared once: its default, its check, its help text.

In: keyword arguments, a TOML file, command-line values. Out: one frozen `AuditConfig`.
The command line is generated from these fields, so an option has the same name everywhere.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from audit.errors import ConfigError
from audit.gates import read_limits

Scaling = Literal["none", "0-1", "-1-1", "imagenet-caffe", "imagenet-torch"]
AspectRatio = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "nearest"]
HeadChoice = Literal["auto", "sigmoid", "logit", "softmax", "logits"]
Method = Literal["gradcam", "article", "gradcam++", "hirescam", "layercam", "occlusion"]
Fusion = Literal["consensus", "mean", "article"]
KeepMaps = Literal["full", "compact", "fused"]
Causal = Literal["off", "quick", "full"]
Engine = Literal["local", "ray"]

MAX_PIXELS = 250_000_000
"""The largest sensors in telephones have 200 million; decoded, so many take 750 MB."""

PLACES = ("engine", "address", "workers", "gpus_per_worker")
"""Options that say where an audit runs: they change no result, and no run folder keeps them."""

OBJECTS = ("masks", "boxes")
"""Options that say where the objects are; a run folder keeps those that were given."""


class AuditConfig(BaseModel):
    """The options of one audit. Field names are the names of the command-line options."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    classes: Annotated[
        tuple[str, ...] | None,
        Field(description="Class names in the order of the model's outputs, separated by commas."),
    ] = None
    label_regex: Annotated[
        str | None,
        Field(
            description="For a flat folder: a regular expression whose first group, found in the"
            " file name, is the class. Example: '^(cat|dog)' for cat.123.jpg."
        ),
    ] = None
    positive: Annotated[
        str | None,
        Field(description="Two classes: the positive class.  [default: the second class]"),
    ] = None
    threshold: Annotated[
        float,
        Field(gt=0, lt=1, description="Two classes: call it positive from this probability on."),
    ] = 0.5
    scaling: Annotated[
        Scaling,
        Field(
            description="How pixels of 0 to 255 are scaled before they enter the model. 'none' is"
            " what image_dataset_from_directory feeds."
        ),
    ] = "none"
    aspect: Annotated[
        AspectRatio,
        Field(description="How an image of another shape is brought to the model's input size."),
    ] = "stretch"
    interpolation: Annotated[
        Interpolation,
        Field(
            description="How an image is resized: 'bilinear' as image_dataset_from_directory does,"
            " 'nearest' as load_img and ImageDataGenerator do."
        ),
    ] = "bilinear"
    head: Annotated[
        HeadChoice,
        Field(description="What the model's outputs are; 'auto' finds out."),
    ] = "auto"
    output: Annotated[
        str | None,
        Field(
            description="For a model with several outputs: the name or the number, from 0, of the"
            " one that holds the class scores."
        ),
    ] = None
    method: Annotated[
        Method,
        Field(
            description="The rule that makes a heat-map: from activations and gradients, or, with"
            " 'occlusion', by painting out parts of the image. A model that cannot be looked into"
            " is explained by occlusion whatever is said here."
        ),
    ] = "gradcam"
    layers: Annotated[
        str,
        Field(
            description="Which layers are explained: 'all', 'conv' (convolutions), 'stages' (the"
            " last one of each size), or a regular expression that their path must match."
        ),
    ] = "all"
    fusion: Annotated[
        Fusion | None,
        Field(
            description="How the maps of all layers are joined: by 'consensus' (channel weights"
            " averaged over the errors of a sample, layers that follow the logit), as their 'mean',"
            " or as the 'article' did.  [default: consensus with gradcam, else as it belongs to the"
            " method]"
        ),
    ] = None
    keep_maps: Annotated[
        KeepMaps,
        Field(
            description="Which maps are stored: 'compact' (every layer, large ones made smaller, so"
            " that an image takes at most 64 KB for each class), 'full' (every layer at its own"
            " size) or 'fused' (only the map that joins the layers)."
        ),
    ] = "compact"
    controls: Annotated[
        int | None,
        Field(
            ge=0,
            description="How many correct images are explained to compare the errors with."
            "  [default: as many as there are errors, at most 1000]",
        ),
    ] = None
    causal: Annotated[
        Causal,
        Field(
            description="Whether what an error looks at is painted out to see if it is the cause:"
            " 'quick' asks the model 10 times for each error, 'full' 25 times, and 'off' not at"
            " all."
        ),
    ] = "quick"
    masks: Annotated[
        str | None,
        Field(
            description="A folder of PNG masks, called as the images: what is not black is the"
            " object. The report then says how much of the focus lies inside it."
        ),
    ] = None
    boxes: Annotated[
        str | None,
        Field(
            description="The same from boxes, for images without a mask: a COCO JSON file, or a"
            " folder of Pascal VOC XML files."
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            description="Images a batch in predictions; by default 32, on a GPU what is fastest.",
        ),
    ] = None
    explain_batch_size: Annotated[
        int,
        Field(ge=1, description="Images a batch in explanations; fewer if `--memory` says so."),
    ] = 16
    memory: Annotated[
        str,
        Field(
            description="Memory that explanations may take: an amount such as 4GB, or a share of"
            " what is free when they begin, such as 50%. Only sets the size of batches."
        ),
    ] = "50%"
    shard_size: Annotated[
        int, Field(ge=1, description="Images a shard; a resumed run redoes unfinished shards.")
    ] = 1024
    explain_shard_size: Annotated[int, Field(ge=1, description="Explained images a shard.")] = 64
    max_pixels: Annotated[
        int,
        Field(
            ge=1,
            description="An image whose header claims more pixels than this is not decoded but"
            " listed as unreadable.",
        ),
    ] = MAX_PIXELS
    max_unreadable: Annotated[
        int,
        Field(
            ge=0,
            description="More files that cannot be read, or of which the model says nothing, than"
            " this end the run with exit code 3.",
        ),
    ] = 0
    fail_under: Annotated[
        dict[str, float],
        Field(
            description="A metric and its limit, such as accuracy=0.9: a finished run that misses"
            " it ends with exit code 4. A log_loss, brier, ece or false_positive_rate must not be"
            " above its limit. May be given several times."
        ),
    ] = {}
    seed: Annotated[int, Field(ge=0, description="Seed of every random choice.")] = 0
    trust_model_code: Annotated[
        bool,
        Field(description="Run code that the model file brings along, such as Lambda layers."),
    ] = False
    engine: Annotated[
        Engine,
        Field(
            description="Who does the shards: 'local', this process, or 'ray', workers on a Ray"
            " cluster that reach the same files by the same paths. Results are the same."
        ),
    ] = "local"
    address: Annotated[
        str,
        Field(
            description="With --engine ray: 'local' starts a cluster on this machine, 'auto' finds"
            " the one that this machine is a part of, ray://HOST:PORT is one elsewhere."
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="With --engine ray: workers at once.  [default: one on each GPU if"
            " --gpus-per-worker is given, or else on each machine]",
        ),
    ] = None
    gpus_per_worker: Annotated[
        float, Field(ge=0, description="With --engine ray: GPUs of each worker, such as 1 or 0.5.")
    ] = 0

    def kept(self) -> dict[str, Any]:
        """Return the options as a run folder keeps them, as plain values."""
        not_given = {name for name in OBJECTS if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude={*PLACES, *not_given})

    @field_validator(*OBJECTS, mode="before")
    @classmethod
    def _name_place(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator(*OBJECTS)
    @classmethod
    def _check_place(cls, value: str | None) -> str | None:
        if value is not None and (not value or "://" in value):
            raise ValueError("give a path of this machine")
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(","))
        return value

    @field_validator("output", mode="before")
    @classmethod
    def _name_output(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (len(names) < 2 or "" in names or len(set(names)) < len(names)):
            raise ValueError("give at least two different names, such as cats,dogs")
        return names

    @field_validator("fail_under", mode="before")
    @classmethod
    def _read_limits(cls, value: Any) -> Any:
        return read_limits(value)

    @field_validator("fusion")
    @classmethod
    def _check_fusion(cls, value: str | None, others: ValidationInfo) -> str | None:
        method = others.data.get("method")
        if value is not None and method == "occlusion":
            raise ValueError("with `--method occlusion` there are no layers to join")
        if value == "consensus" and method != "gradcam":
            raise ValueError(f"consensus needs `--method gradcam`, not {method}")
        return value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: str) -> str:
        parse_memory(value)
        return value

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if value not in ("local", "auto") and not re.fullmatch(r"ray://[^/\s]+:\d+", value):
            raise ValueError("give local, auto or ray://HOST:PORT")
        return value

    @field_validator("label_regex", "layers")
    @classmethod
    def _check_regex(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as exc:
            raise ValueError(f"not a regular expression ({exc})") from exc
        return value

    @field_validator("label_regex")
    @classmethod
    def _check_group(cls, value: str | None) -> str | None:
        if value is not None and re.compile(value).groups < 1:
            raise ValueError(
                "it needs a group in parentheses around the class, such as '^(cat|dog)'"
            )
        return value


def make_config(options: Mapping[str, Any], toml_path: Path | None = None) -> AuditConfig:
    """Join defaults, a TOML file and given options, later ones winning, and check the result.

    Args:
        options: values by field name; an unknown name is refused.
        toml_path: a TOML file whose keys are option names, with `-` or `_`, at the top level.

    Raises:
        ConfigError: if a name is unknown or a value cannot be used; it names the option.
    """
    values = {**(_read_toml(toml_path) if toml_path else {}), **options}
    try:
        return AuditConfig(**values)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = option_name(str(first["loc"][0])) if first["loc"] else "options"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = ", ".join(option_name(field) for field in AuditConfig.model_fields)
            raise ConfigError(f"There is no option `{name}`. The options are: {known}.") from exc
        raise ConfigError(
            f"`{name}` cannot be used: {message}. Received: {first['input']!r}."
        ) from exc


def parse_memory(text: str) -> tuple[int | None, float | None]:
    """Read an amount of memory: (bytes, None) of "4GB", (None, 0.5) of "50%".

    Raises:
        ValueError: if it is neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[kMGT]i?B)\s*", text, re.IGNORECASE)
    number, unit = (float(match[1]), match[2].upper()) if match else (0.0, "")
    if not number or (unit == "%" and number > 100):
        raise ValueError("give an amount such as 4GB or 800MB, or a share such as 50%")
    if unit == "%":
        return None, number / 100
    base = 1024 if "I" in unit else 1000
    return int(number * base ** ("KMGT".index(unit[0]) + 1)), None


def parse_budget(text: str) -> int:
    """Read the bytes that a file may have: 25000000 of "25MB".

    Raises:
        ConfigError: if it is no amount.
    """
    try:
        n_bytes, _ = parse_memory(text)
    except ValueError:
        n_bytes = None
    if n_bytes is None:
        raise ConfigError(
            f"`--budget {text}` cannot be used: give an amount such as 25MB. Received: {text!r}."
        )
    return n_bytes


def option_name(field: str) -> str:
    """Return the command-line spelling of a field: `label_regex` becomes `--label-regex`."""
    return "--" + field.replace("_", "-")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as exc:  # ValueError: not TOML, or not UTF-8
        raise ConfigError(
            f"`--config {path}` cannot be read. Received: {exc}. Give a TOML file with lines such"
            " as `threshold = 0.5`."
        ) from exc
    return {key.replace("-", "_"): value for key, value in content.items()}
