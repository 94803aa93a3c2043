"""How every figure is drawn and written: one style, one palette, small and repeatable SVG.

Figures are matplotlib `Figure` objects without pyplot. Their colours become CSS variables, so a
page decides what they are by day and by night; their text stays text, in the page's own type.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "WIDTH", "blank", "printable", "style", "to_svg"]

WIDTH = 400
"""Width of a figure in its own units; text is 10 of them, so it is legible on a phone."""

COLOURS = {
    "ink": "#20262d",
    "muted": "#67717c",
    "grid": "#e4e6e8",
    "paper": "#fffefd",
    "dot": "#3a78a8",
    "front": "#17496f",
    "winner": "#c44a12",
    "over": "#b0413e",
    "band": "#5d8f6b",
}
"""What a figure may be coloured: name -> the colour by day, where no style sheet says another."""

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_FAMILY = re.compile(r"font-family: [^;]*; ?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ufffe\uffff]|[\ud800-\udfff]")


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw under the report's style; `name` salts the ids, so that figures share none.

    matplotlib reads its style from one global place. It is put back on leaving.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": f"assay-{name}",
                "text.parse_math": False,  # a user's "$" is a dollar, not a formula
                "axes.formatter.use_mathtext": False,
                "font.size": 10.5,
                "axes.labelsize": 10.5,
                "xtick.labelsize": 10.0,
                "ytick.labelsize": 10.0,
                "legend.fontsize": 10.0,
                "legend.frameon": False,
                "text.color": COLOURS["ink"],
                "axes.labelcolor": COLOURS["ink"],
                "axes.edgecolor": COLOURS["muted"],
                "xtick.color": COLOURS["muted"],
                "ytick.color": COLOURS["muted"],
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": COLOURS["grid"],
                "grid.linewidth": 0.8,
                "axes.linewidth": 0.8,
                "lines.linewidth": 1.6,
                "figure.facecolor": "none",
                "axes.facecolor": "none",
                "savefig.facecolor": "none",
            }
        )
        yield


def blank(height: int, *, width: int = WIDTH) -> tuple[Figure, Axes]:
    """Return an empty figure of `width` × `height` and its one pair of axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def printable(text: str) -> str:
    """Return a user's text without the characters that XML cannot carry."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """Write a figure as one SVG element to be set into a page.

    No date, no metadata and no width: the same figure gives the same bytes, and the page scales
    it. Groups that were given the gid "assay-X" carry the class "X".

    Args:
        figure: Drawn inside `style`.
        name: The element's class, beside "figure".
        alt: What the figure shows, for who cannot see it.
    """
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    root = ET.fromstring(out.getvalue())
    _drop(root)
    _shorten(root)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("class", f"figure {name}")
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", "stroke-linejoin: round; font-family: var(--sans, sans-serif)")
    root.set("xmlns", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode")


def _drop(root: ET.Element) -> None:
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for defs in root.findall(f"{_SVG}defs"):
        for sheet in defs.findall(f"{_SVG}style"):  # would apply to the whole page
            defs.remove(sheet)
        if len(defs) == 0:
            root.remove(defs)


def _shorten(root: ET.Element) -> None:
    values = (value for element in root.iter() for value in element.attrib.values())
    used = set(re.findall(r"#([\w.-]+)", " ".join(values)))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        attributes = element.attrib
        if _XLINK in attributes:
            attributes["href"] = attributes.pop(_XLINK)
        identity = attributes.get("id", "")
        if identity and identity not in used:
            del attributes["id"]
            if identity.startswith("assay-"):
                attributes["class"] = identity.removeprefix("assay-")
        for key in ("d", "x", "y", "width", "height", "transform"):
            if key in attributes:
                attributes[key] = " ".join(_NUMBER.sub(_rounded, attributes[key]).split())
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        if "style" in attributes:
            attributes["style"] = _themed(attributes["style"])
        element.text = element.text if element.tag == "text" else None
        element.tail = None
    for group in root.iter("g"):
        _hoist(group)


def _rounded(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.1f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def _themed(style: str) -> str:
    style = _FAMILY.sub("", style)  # inherited from the element, and so from the page
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name}, {colour})")
    return style


def _hoist(group: ET.Element) -> None:
    """Move a style that all the marks of a group share to the group."""
    marks = [child for child in group if child.tag != "defs"]
    styles = {mark.get("style") if mark.tag == "use" else None for mark in marks}
    shared = styles.pop() if len(styles) == 1 else None
    if shared is not None and len(marks) > 1:
        group.set("style", shared)
        for mark in marks:
            del mark.attrib["style"]
