"""How pages are written: templates whose values are always escaped, with what every page needs.

Times and numbers go out as they are, in `<time>` and `<data>`, with a plain wording inside; console.js writes them again in the
language and time zone of whoever looks. So what is sent is the same for all viewers.
"""

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import falcon
import msgspec
from falcon.asgi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.model.durations import format_duration, format_wait
from engine.model.plurals import pluralize
from engine.model.timestamps import format_utc, format_utc_ms
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.history.audit_history import detail_words, read_detail

_FOLDER = Path(str(files("workers.console")))

STATIC_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class NavigationEntry(msgspec.Struct, frozen=True):
    """A page that the bar at its head leads to."""

    path: str
    title: str


class PageTemplates:
    """The templates, and the files that pages refer to, each under an address that changes with what is in it."""

    def __init__(self, navigation: tuple[NavigationEntry, ...]) -> None:
        self.assets = {path.name: path.read_bytes() for path in sorted((_FOLDER / "static").iterdir())}
        self._digests = {name: sha256(data).hexdigest()[:16] for name, data in self.assets.items()}
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "moment": format_moment,
            "clock": partial(format_moment, form="clock"),
            "capital": capitalize_first,
            "age": format_duration,
            "wait": format_wait,
            "count": format_count,
            "plural": pluralize,
            "detail_words": lambda act: detail_words(read_detail(act)),
        }
        self._environment.globals |= {"asset": self._asset_address, "navigation": navigation}

    def render(self, template: str, values: Mapping[str, object]) -> str:
        return self._environment.get_template(template).render(values)

    def respond(self, req: Request, resp: Response, template: str, **values: object) -> None:
        """Answer with a page; with a part of it alone if the page itself asks for that."""
        user: ConsoleUser | None = getattr(req.context, "user", None)
        resp.content_type = falcon.MEDIA_HTML
        resp.text = self.render(template, {"user": user, "path": req.path, **values})

    def _asset_address(self, name: str) -> str:
        return f"/static/{name}?{self._digests[name]}"


class StaticResource:
    """Scripts, style and pictures: the same for everybody, and kept by browsers, as their addresses change with them."""

    is_public = True

    def __init__(self, templates: PageTemplates) -> None:
        self._assets = templates.assets

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        data = self._assets.get(name)
        kind = STATIC_TYPES.get(Path(name).suffix)
        if data is None or kind is None:
            raise falcon.HTTPNotFound
        resp.data, resp.content_type = data, kind
        resp.set_header("Cache-Control", "public, max-age=31536000, immutable")


def format_moment(ms: int, form: str = "moment") -> Markup:
    """Write a moment, ms since 1970, so that a browser can write it as its reader would; `clock`: without its day."""
    return Markup('<time datetime="{}" data-form="{}">{} UTC</time>').format(
        format_utc_ms(ms), form, format_utc(ms)
    )


def capitalize_first(sentence: str) -> str:
    """Begin with a capital, and leave the rest as it is."""
    return sentence[:1].upper() + sentence[1:]


def format_count(number: float) -> Markup:
    return Markup('<data value="{}">{}</data>').format(number, f"{number:,}")
