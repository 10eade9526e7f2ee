"""A page as one HTML file: the data as JSON that no name in it can end, style and scripts inside, nothing else."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
DATA = '<script type="application/json" id="data">'
SCRIPTS = ("base.js", "tables.js", "plots.js", "clips.js", "repair.js", "main.js")


def render(data: dict[str, Any]) -> str:
    """The page of `data`, whose `mode` is report or repair. Its policy lets run this script alone, and reads sound
    from itself, from disk or from the server that sent it, and nothing from elsewhere."""
    script = "\n".join(_text(name) for name in SCRIPTS)
    style = _text("page.css")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2").render(
        title=data["title"],
        script=Markup(script),
        style=Markup(style),
        data=Markup(f"{DATA}{_json(data)}</script>"),
        policy=(
            f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
            "media-src 'self' file: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
        ),
    )


def _json(data: dict[str, Any]) -> str:
    """JSON inside of a script element: < and > are escaped, so that no name in it ends the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: lone surrogates are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
