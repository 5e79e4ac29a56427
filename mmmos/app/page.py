"""The page as Gradio blocks: a place for files, a table of them, the details of one.

All letters come from ``view``; what happens in the browser alone (sorting, choosing a curve, seeking) is in
``assets/*.js``. Files are scored one after another, those of all visitors, by one scorer.
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmos.app import clips, serving, view
from mmmos.app.clips import Entry
from mmmos.scoring import tables
from mmmos.scoring.scorer import Scorer

if TYPE_CHECKING:
    import gradio

Entries = tuple[Entry, ...]

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")


def serve(scorer: Scorer, subject: view.Subject, *, port: int, folder: Path) -> str:
    """Serve the page in threads of its own, files of its visitors in a folder; its address."""
    from starlette.middleware import Middleware

    page = build(scorer, subject, folder)
    page.queue(default_concurrency_limit=1, api_open=False)
    _, address, _ = page.launch(
        server_name=serving.HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        inbrowser=False,
        footer_links=[],
        max_file_size=clips.MAX_BYTES,
        allowed_paths=[],
        root_path="",
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(serving.Gate)], "docs_url": None, "redoc_url": None},
        theme=_theme(),
        head=f"<style>{_asset('page.css')}</style>",
    )
    return str(address)


def build(scorer: Scorer, subject: view.Subject, folder: Path) -> "gradio.Blocks":
    """The page's parts and what they do."""
    import gradio as gr

    with gr.Blocks(title=f"MMMOS: {subject.name}", analytics_enabled=False) as page:
        entries: Any = gr.State(())
        _part(view.head(subject))
        drop = _part(view.drop(), "drop.js")
        status = _part("")
        table = _part("", "table.js")
        details = _part("", "details.js")

        def add(known: Entries, event: gr.EventData) -> Iterator[tuple[Any, ...]]:
            first = len(known)
            for now, all_now, new in scored(known, event._data.get("files"), scorer, folder):
                shown = view.details(subject, new) if new else gr.skip()
                yield all_now, view.status(now), table_of(subject, all_now, first), shown

        def choose(known: Entries, event: gr.EventData) -> str:
            index = event._data.get("index")
            there = isinstance(index, int) and 0 <= index < len(known)
            return view.details(subject, known[index] if there else None)

        def clear(known: Entries) -> tuple[Any, ...]:
            forget(known)
            return (), "", "", ""

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        everything = [entries, status, table, details]
        adding = drop.upload(add, [entries], everything, trigger_mode="multiple", concurrency_limit=1, **quiet)
        table.select(choose, [entries], [details], trigger_mode="always_last", concurrency_limit=None, **quiet)
        table.clear(clear, [entries], everything, cancels=[adding], **quiet)
    return page


def scored(known: Entries, sent: Any, scorer: Scorer, folder: Path) -> Iterator[tuple[str, Entries, Entry | None]]:
    """Score what the browser has sent: what is being done, all entries so far, and the first of the new ones once."""
    arrived = list(clips.uploads(sent, folder))
    first: Entry | None = None
    for number, upload in enumerate(arrived, start=1):
        name = clips.unused(upload.name, {each.score.id for each in known})
        yield f"Scoring {number} of {len(arrived)}: {name}", known, None
        entry = clips.entry(upload, name, scorer, folder)
        if upload.path is not None:
            upload.path.unlink(missing_ok=True)
        known = (*known, entry)
        yield "", known, None if first else entry
        first = first or entry


def forget(known: Entries) -> None:
    """Remove the listening copies of entries."""
    for entry in known:
        if entry.sound is not None:
            entry.sound.unlink(missing_ok=True)


def table_of(subject: view.Subject, known: Entries, chosen: int) -> str:
    """The table, a row of it chosen, with what it offers for download: the columns of ``mmmos score --format csv``."""
    rows = (tables.row_of(entry.score, subject.axes, None) for entry in known)
    csv = b"".join(tables.pieces(rows, "csv", subject.axes, segments=False))
    return view.table(subject, known, chosen, csv.decode())


def _part(html: str, script: str = "") -> Any:
    """A part of the page; its script runs once, when the part is there."""
    import gradio as gr

    return gr.HTML(
        html, js_on_load=_asset(script) if script else None, elem_classes=["m-part"], apply_default_css=False
    )


def _asset(name: str) -> str:
    return files("mmmos.app").joinpath("assets", name).read_text(encoding="utf-8")


def _theme() -> Any:
    """Gradio's plainest look in fonts of the system: others would be fetched."""
    import gradio as gr

    return gr.themes.Base(font=FONT, font_mono=("ui-monospace", "monospace"))
