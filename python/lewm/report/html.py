"""The few pieces of HTML that a report is made of. Nothing in a page comes from outside it, and nothing in it runs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

__all__ = [
    "code",
    "details",
    "figure",
    "image_file",
    "interval_bar",
    "missing",
    "page",
    "paragraph",
    "section",
    "svg_image",
    "table",
    "tiles",
]

_TYPES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}

_STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --line: #dfe4ea; --paper: #ffffff; --back: #f4f6f8; --accent: #2563a8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 30px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 0 0 12px; }
h3 { font-size: 16px; margin: 24px 0 8px; overflow-wrap: anywhere; }
nav { margin: 16px 0 24px; display: flex; flex-wrap: wrap; gap: 8px; }
nav a { color: var(--accent); text-decoration: none; background: var(--paper); border: 1px solid var(--line);
  border-radius: 999px; padding: 3px 12px; font-size: 14px; }
nav a:hover { border-color: var(--accent); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px;
  margin-bottom: 18px; }
p { margin: 0 0 12px; max-width: 78ch; }
.soft, figcaption { color: var(--soft); font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 21px; font-weight: 650; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; }
figure { margin: 12px 0 16px; overflow-x: auto; }
figure img { max-width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { margin-top: 6px; max-width: 78ch; }
.scroll { overflow-x: auto; margin-bottom: 12px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; margin: 0 0 12px;
  overflow-x: auto; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--accent); margin-bottom: 8px; }
.missing { border-left: 3px solid var(--line); padding-left: 14px; }
svg.bar { display: block; }
"""


def page(title: str, header: str, sections: Iterable[tuple[str, str, str]]) -> str:
    """A whole page; sections are (anchor, title, content)."""
    parts = list(sections)
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in parts)
    body = "\n".join(section(anchor, name, content) for anchor, name, content in parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{header}\n<nav>{links}</nav>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(anchor: str, title: str, content: str) -> str:
    """A titled box."""
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text; kind "soft" for what is of less weight."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """A block of commands or settings."""
    return f"<pre>{escape(text)}</pre>"


def details(summary: str, content: str) -> str:
    """Content that is shown on request."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def missing(what: str, command: str) -> str:
    """Says that something was not made, and what makes it."""
    return f'<div class="missing"><p class="soft">{escape(what)}</p>{code(command)}</div>'


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Figures at a glance: (value, what it is)."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in values
    )
    return f'<div class="tiles">{cells}</div>'


class Drawing(str):
    """Markup of this module's making, which a table takes as it is."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of text and `Drawing`s. numbers: columns set right."""

    def cell(tag: str, column: int, text: str) -> str:
        kind = ' class="number"' if column in numbers else ""
        return f"<{tag}{kind}>{text if isinstance(text, Drawing) else escape(text)}</{tag}>"

    lines = ["".join(cell("th", i, text) for i, text in enumerate(head))]
    lines += ["".join(cell("td", i, text) for i, text in enumerate(row)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>{body}</table></div>'


def interval_bar(value: float, low: float, high: float, colour: str = "#2563a8") -> Drawing:
    """A rate in [0, 1] as a bar with its interval."""
    width, height = 240, 18
    x, left, right = (round(width * rate, 1) for rate in (value, low, high))
    return Drawing(
        f'<svg class="bar" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f'<rect width="{width}" height="{height}" rx="3" fill="#eef1f4"/>'
        f'<rect width="{x}" height="{height}" rx="3" fill="{colour}" opacity="0.75"/>'
        f'<path d="M{left} 9H{right}M{left} 4V14M{right} 4V14" stroke="#1d2430" stroke-width="1.5"/></svg>'
    )


def image_file(path: Path, caption: str = "") -> str:
    """An image or film of a folder, embedded. Raises OSError if it cannot be read."""
    return figure(path.read_bytes(), _TYPES[path.suffix], caption)


def svg_image(data: bytes, caption: str = "") -> str:
    """A drawing, embedded as an image."""
    return figure(data, _TYPES[".svg"], caption)


def figure(data: bytes, kind: str, caption: str = "") -> str:
    """An embedded image of a media type."""
    text = base64.b64encode(data).decode()
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(caption)}" src="data:{kind};base64,{text}">{note}</figure>'
