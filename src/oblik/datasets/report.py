"""``report.html``: one page that shows what became of every photo and what to photograph next.

In: a dataset folder, its manifest, thumbnails of what was set aside. Out: one self-contained file: no
scripts, no requests, light and dark, readable without a mouse. Knows nothing of how decisions were made.
The page holds pictures of a person: it lies in the dataset's folder, readable by its owner only.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from oblik.datasets.manifest import Dataset, Photo, Split, Status
from oblik.images import data_uri
from oblik.paths import atomic_write
from oblik.photos.coverage import Coverage, advice, cover

LONGEST_PX = 288
SPLITS = {
    Split.train: ("Training", "These teach the LoRA."),
    Split.validation: ("Validation", "Never trained on: they choose the checkpoint and measure likeness."),
    Split.stress: ("Stress", "Covered, turned away, dark or far: never trained on, the hardest test."),
}

STYLE = """
:root{color-scheme:light dark;--paper:#faf8f5;--card:#fff;--ink:#211d19;--soft:#746c63;--line:#e6e0d8;
--train:#2f7d6b;--validation:#c08a2d;--stress:#b4526a;--bar:#ece7df;--shade:0 1px 2px #0000000d,
0 6px 20px #0000000a}
@media(prefers-color-scheme:dark){:root{--paper:#171513;--card:#211e1b;--ink:#efeae4;--soft:#a1978c;
--line:#342f2a;
--train:#5bb8a2;--validation:#e0b160;--stress:#e08aa0;--bar:#2e2925;--shade:0 1px 2px #0004}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 ui-sans-serif,system-ui,-apple-system,
"Segoe UI",
Roboto,"Noto Sans",sans-serif;-webkit-font-smoothing:antialiased}
main{max-width:1120px;margin:0 auto;padding:56px 28px 72px}
h1{font-size:34px;line-height:1.15;letter-spacing:-.02em;margin:0 0 6px;font-weight:650;
overflow-wrap:anywhere}
h2{font-size:20px;letter-spacing:-.01em;margin:56px 0 4px;font-weight:620}
h3{font-size:12.5px;margin:0 0 12px;font-weight:600;color:var(--soft);text-transform:uppercase;
letter-spacing:.06em}
p{margin:0 0 14px}.soft{color:var(--soft)}code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,
monospace}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;
box-shadow:var(--shade)}
.top{display:grid;grid-template-columns:auto 1fr;gap:36px;align-items:center;margin-top:28px}
.big{font-size:60px;line-height:1;font-weight:660;letter-spacing:-.04em;font-variant-numeric:tabular-nums}
.stack{display:flex;height:14px;border-radius:7px;overflow:hidden;gap:2px;background:var(--bar)}
.stack i{display:block}.legend{display:flex;flex-wrap:wrap;gap:6px 22px;margin:12px 0 0;padding:0;
list-style:none}
.legend b{font-variant-numeric:tabular-nums}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.train{background:var(--train)}.validation{background:var(--validation)}.stress{background:var(--stress)}
.aside{background:var(--soft);opacity:.55}.refused{background:var(--line)}
.three{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:18px;margin-top:16px}
.next{margin:16px 0 0;padding:0;list-style:none;display:grid;gap:10px}
.next li{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--validation);
border-radius:10px;padding:12px 16px}
.row{display:grid;grid-template-columns:minmax(96px,50%) 1fr 26px;gap:10px;align-items:center;margin:7px 0;
font-size:14px}
.row span:last-child{text-align:right;font-variant-numeric:tabular-nums;color:var(--soft)}
.track{height:8px;border-radius:4px;background:var(--bar);overflow:hidden}
.track i{display:block;height:100%;border-radius:4px;background:var(--train)}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(124px,1fr));gap:10px;margin-top:16px}
figure{margin:0;position:relative;border-radius:10px;overflow:hidden;background:var(--bar);outline-offset:2px}
figure img{display:block;width:100%;height:100%;aspect-ratio:1;object-fit:cover}
.sheet figcaption{position:absolute;inset:0;padding:9px 10px;background:#14110fe0;color:#f6f2ec;
font-size:11px;
line-height:1.38;opacity:0;transition:opacity .15s;overflow:auto}
.sheet figure:hover figcaption,.sheet figure:focus figcaption{opacity:1}
.sheet small{display:block;margin-top:5px;color:#c9bfb3}
.why{display:grid;grid-template-columns:repeat(auto-fill,minmax(312px,1fr));gap:12px;margin-top:16px}
.why figure{display:grid;grid-template-columns:92px 1fr;background:var(--card);border:1px solid var(--line)}
.why .none{display:grid;place-items:center;height:92px;color:var(--soft);font-size:12px}
.why img,.why .none{width:92px;height:100%;min-height:92px;background:var(--bar)}
.why figcaption{padding:10px 14px;font-size:13px;min-width:0}.why b{display:block;font-weight:600}
.why span{display:block;color:var(--soft);overflow-wrap:anywhere;font-size:12px;margin-top:3px}
footer{margin-top:64px;padding-top:18px;border-top:1px solid var(--line);font-size:12.5px;color:var(--soft)}
footer code{overflow-wrap:anywhere}
@media(max-width:640px){main{padding:32px 16px}.top{grid-template-columns:1fr;gap:18px}}
@media print{.sheet figcaption{display:none}body{background:#fff}}
"""


def write_report(
    folder: Path, dataset: Dataset, thumbs: Mapping[str, bytes], *, synthetic: bool = False
) -> Path:
    """Write ``folder/report.html``; ``thumbs`` maps a source to a small JPEG."""
    file = folder / "report.html"
    atomic_write(file, render_report(folder, dataset, thumbs, synthetic=synthetic))
    return file


def render_report(
    folder: Path, dataset: Dataset, thumbs: Mapping[str, bytes], *, synthetic: bool = False
) -> str:
    """The page as text."""
    accepted = dataset.accepted()
    coverage = cover([photo.attributes for photo in accepted])
    body = "".join(
        [
            _head(dataset, synthetic),
            _summary(dataset),
            _next(advice(coverage)),
            _coverage(coverage),
            *(_sheet(folder, split, dataset.accepted(split)) for split in SPLITS),
            _why("Set aside", "Readable, and kept out. Nothing was deleted; the files are where they were.",
                 _with_status(dataset, Status.set_aside), thumbs),
            _why("Could not be used", "Files that are not a readable photo.",
                 _with_status(dataset, Status.refused), thumbs),
            _foot(dataset),
        ]
    )  # fmt: skip
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(dataset.persona)} {dataset.version}: dataset report</title>"
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(dataset: Dataset, synthetic: bool) -> str:
    note = (
        '<p class="soft">Made with a pack whose face networks know only rendered people: '
        "on real photographs take its decisions as suggestions.</p>"
        if synthetic
        else ""
    )
    return (
        f"<h1>{escape(dataset.persona)}</h1><p class=soft>Dataset {dataset.version} &middot; "
        f"{dataset.created_at:%d %B %Y} &middot; token <code>{escape(dataset.trigger)}</code> "
        f"{escape(dataset.class_noun)}</p>{note}"
    )


def _summary(dataset: Dataset) -> str:
    parts = [(split.value, SPLITS[split][0], len(dataset.accepted(split))) for split in SPLITS]
    parts.append(("aside", "Set aside", len(_with_status(dataset, Status.set_aside))))
    parts.append(("refused", "Could not be used", len(_with_status(dataset, Status.refused))))
    shown = [part for part in parts if part[2]]
    stack = "".join(f'<i class="{kind}" style="flex:{n}"></i>' for kind, _, n in shown)
    legend = "".join(f'<li><i class="dot {kind}"></i>{name} <b>{n}</b></li>' for kind, name, n in shown)
    count = len(dataset.accepted())
    return (
        f'<section class="card top"><div><div class=big>{count}</div>'
        f"<div class=soft>of {_plural(len(dataset.photos), 'file')} ready</div></div>"
        f"<div><div class=stack>{stack}</div><ul class=legend>{legend}</ul></div></section>"
    )


def _next(sentences: Sequence[str]) -> str:
    if not sentences:
        return "<h2>What to photograph next</h2><p class=soft>Nothing is missing.</p>"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>What to photograph next</h2><ul class=next>{items}</ul>"


def _coverage(coverage: Coverage) -> str:
    tables = {
        "View": coverage.views, "Light": coverage.light, "Expression": coverage.expression,
        "Scene": coverage.scene, "Worn": coverage.worn,
    }  # fmt: skip
    said = {name: table for name, table in tables.items() if set(table) - {"not said"}}
    cards = "".join(_bars(name, table, coverage.photos) for name, table in said.items())
    return (
        "<h2>What the photos show</h2>"
        "<p class=soft>Views and light are measured; the rest is what captions say.</p>"
        f"<div class=three>{cards}</div>"
    )


def _bars(name: str, table: Mapping[str, int], photos: int) -> str:
    rows = "".join(
        f"<div class=row><span>{escape(word)}</span><span class=track>"
        f'<i style="width:{100 * n / max(photos, 1):.0f}%"></i></span><span>{n}</span></div>'
        for word, n in table.items()
    )
    return f"<div class=card><h3>{name}</h3>{rows}</div>"


def _sheet(folder: Path, split: Split, photos: Sequence[Photo]) -> str:
    if not photos:
        return ""
    title, line = SPLITS[split]
    cells = "".join(_cell(folder, photo) for photo in photos)
    return (
        f'<h2><i class="dot {split.value}"></i>{title} <span class=soft>{len(photos)}</span></h2>'
        f"<p class=soft>{line} Hover or tab to a picture for its caption.</p><div class=sheet>{cells}</div>"
    )


def _cell(folder: Path, photo: Photo) -> str:
    assert photo.path is not None
    flags = photo.flags
    numbers = [f"yaw {flags.get('yaw_deg', 0):+.0f}°", f"sharpness {flags.get('sharpness', 0):.0f}"]
    if "stress" in photo.attributes:
        numbers.append(photo.attributes["stress"])
    uri = data_uri(folder / photo.path, longest_px=LONGEST_PX, quality=86)
    caption = escape(photo.caption)
    return (
        f'<figure tabindex="0"><img alt="{caption}" src="{uri}"><figcaption>{caption}'
        f"<small>{escape(' · '.join(numbers))}</small><small>{escape(photo.source)}</small>"
        "</figcaption></figure>"
    )


def _why(title: str, line: str, photos: Sequence[Photo], thumbs: Mapping[str, bytes]) -> str:
    if not photos:
        return ""
    cells = "".join(
        _reason(photo, thumbs.get(photo.source, b"")) for photo in sorted(photos, key=_reason_order)
    )
    heading = f"<h2>{title} <span class=soft>{len(photos)}</span></h2>"
    return f"{heading}<p class=soft>{line}</p><div class=why>{cells}</div>"


def _reason(photo: Photo, thumb: bytes) -> str:
    uri = f"data:image/jpeg;base64,{base64.b64encode(thumb).decode('ascii')}"
    picture = f'<img alt="" src="{uri}">' if thumb else '<div class=none aria-hidden="true">no picture</div>'
    reason, _, numbers = (photo.reason[:1].upper() + photo.reason[1:]).partition(" (")
    details = [photo.source, *([numbers.rstrip(")")] if numbers else [])]
    caption = f"<b>{escape(reason)}</b>" + "".join(f"<span>{escape(line)}</span>" for line in details)
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _foot(dataset: Dataset) -> str:
    tools = ", ".join(f"{name} {version}" for name, version in dataset.tools.items() if name != "inputs")
    return (
        f"<footer><p>Faces by <code>{escape(dataset.face_stack)}</code>. Written images carry no metadata. "
        f"Consent <code>{dataset.consent_sha256[:16]}</code>. {escape(tools)}.</p>"
        "<p>This page holds pictures of a person. It was written for its owner's eyes only.</p></footer>"
    )


def _with_status(dataset: Dataset, status: Status) -> list[Photo]:
    return [photo for photo in dataset.photos if photo.status is status]


def _reason_order(photo: Photo) -> tuple[str, str]:
    return photo.reason.split(" (")[0].split(" as ")[0], photo.source


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
