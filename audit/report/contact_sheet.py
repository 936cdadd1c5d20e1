"""One page that shows the images which a search found, in one file that needs nothing else.

In: small pictures and what is known of them. Out: HTML with pictures and style inside.
"""

import base64
import hashlib
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from audit.report.pages import make_environment

RING_RADIUS = 0.14
"""Of the ring around a place, as a share of the picture's shorter side."""

_TEMPLATE = "contact_sheet.html"
_STYLE = "static/contact_sheet.css"


@dataclass(frozen=True)
class Picture:
    """A JPEG without metadata, and its size in pixels."""

    jpeg: bytes
    width: int
    height: int

    @property
    def address(self) -> str:
        """The picture itself, as an address."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
        likeness: cosine, -1 to 1.
        p: the model's probability of the predicted class.
        picture: `None` if it could not be read again.
        place: the middle of its most alike place, as shares of width and height; `None` without.
    """

    rank: int
    path: str
    likeness: float
    predicted_class: str
    p: float
    picture: Picture | None
    place: tuple[float, float] | None

    @property
    def ring(self) -> tuple[float, float, float] | None:
        """Centre and radius of a ring around the place, in pixels of the picture."""
        if self.picture is None or self.place is None:
            return None
        width, height = self.picture.width, self.picture.height
        radius = RING_RADIUS * min(width, height)
        return round(self.place[0] * width, 1), round(self.place[1] * height, 1), round(radius, 1)


@dataclass(frozen=True)
class Sheet:
    """All that the page says.

    Attributes:
        target_id, title, text: what is looked for.
        examples: pictures of the target.
    """

    program: str
    model_name: str
    pool_name: str
    target_id: str
    title: str
    text: str
    n_images: int
    n_unreadable: int
    notes: tuple[str, ...]
    examples: tuple[Picture, ...]
    hits: tuple[Hit, ...]

    @property
    def has_places(self) -> bool:
        return any(hit.ring for hit in self.hits)


def render_contact_sheet(sheet: Sheet) -> bytes:
    """Return the page. Its policy allows its own style and pictures, and nothing else."""
    environment = make_environment()
    style = _read_style(environment)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The style sheet is a file of the program's; as text it would come out escaped.
    text = environment.get_template(_TEMPLATE).render(
        sheet=sheet, style=Markup(style), style_hash=f"sha256-{digest}"
    )
    return text.encode("utf-8", "replace")


def _read_style(environment: jinja2.Environment) -> str:
    loader = environment.loader
    assert loader is not None  # set in make_environment
    return loader.get_source(environment, _STYLE)[0]
