"""One HTML file about a run: everything that its commands have written, embedded, so that the file stands alone."""

from __future__ import annotations

from pathlib import Path

from lewm.checkpoint.atomic import write_file
from lewm.report.html import page
from lewm.report.sections import header, sections
from lewm.report.sources import Sources, find_sources

__all__ = ["Sources", "find_sources", "write_html"]


def write_html(folder: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report of a run and returns its path.

    Args:
        folder: of a run or a quickstart. Results of ``lewm eval``, ``probe``, ``surprise`` and ``decode`` are found
            anywhere in it.
        out: the file; by default ``report.html`` in the folder.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it to report.
        lewm.Error: a file of results is damaged.
        OSError: the file cannot be written.
        ImportError: matplotlib is missing.
    """
    sources = find_sources(Path(folder))
    path = Path(out) if out is not None else sources.folder / "report.html"
    write_file(path, page(sources.title, header(sources), sections(sources)).encode("utf-8", "replace"))
    return path
