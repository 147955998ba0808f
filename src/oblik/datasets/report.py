"""``report.html``: one page that shows what became of every photo and what to photograph next.

In: a dataset folder and its manifest. Out: one self-contained file: no scripts, no requests, light and dark,
readable on a phone and without a mouse. Knows nothing of how decisions were made.
The page holds pictures of a person: it lies in the dataset's folder, readable by its owner only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from oblik.datasets.manifest import NOTE, Dataset, Extra, Kind, Photo, Split, Status
from oblik.datasets.report_charts import bars, turns
from oblik.datasets.report_style import STYLE
from oblik.images import data_uri
from oblik.paths import atomic_write
from oblik.photos.coverage import WANTED_VIEWS, Coverage, advice, cover, judge

LONGEST_PX, SMALL_PX, SAMPLES = 288, 168, 12
PLACES = 6
SPLITS = {
    Split.train: ("Training", "These teach the LoRA."),
    Split.validation: ("Validation", "Never trained on: they choose the checkpoint and measure likeness."),
    Split.stress: ("Stress", "Covered, turned away, dark or far: never trained on, the hardest test."),
}
EXTRAS = {
    Kind.class_image: (
        "Class images",
        "Other people under the same noun, so that the noun keeps its meaning.",
    ),
    Kind.negative: ("Negatives", "Contrasting people, described without the token."),
    Kind.augmented: ("Variations", "Training photos with light changes, the same ones for the same seed."),
}


def write_report(folder: Path, dataset: Dataset) -> Path:
    """Write ``folder/report.html``."""
    file = folder / "report.html"
    atomic_write(file, render_report(folder, dataset))
    return file


def render_report(folder: Path, dataset: Dataset) -> str:
    """The page as text."""
    shown = [photo.attributes for photo in dataset.accepted()]
    coverage = cover(shown)
    parts = {
        "next": _next(judge(shown).sentence, advice(coverage)),
        "coverage": _coverage(dataset, coverage),
        "photos": "".join(_sheet(folder, split, dataset.accepted(split)) for split in SPLITS),
        "moments": _moments(folder, dataset),
        "flagged": _why(folder, "Worth a look",
                        "In the dataset all the same. <code>oblik dataset drop</code> takes one out.",
                        [photo for photo in dataset.accepted() if NOTE in photo.attributes]),
        "aside": _why(folder, "Set aside",
                      "Readable, and kept out. Nothing was deleted. "
                      "<code>oblik dataset keep</code> takes one in.",
                      _with_status(dataset, Status.set_aside)),
        "unusable": _why(folder, "Could not be used", "Files that are not a readable photo.",
                         _with_status(dataset, Status.refused)),
        "decisions": _decisions(dataset),
        "extras": "".join(_extras(folder, kind, dataset.extra(kind)) for kind in EXTRAS),
    }  # fmt: skip
    sections = "".join(f'<section id="{name}">{part}</section>' for name, part in parts.items() if part)
    body = _head(dataset) + _summary(dataset) + _links(parts) + sections + _foot(dataset)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(dataset.persona)} {dataset.version}: dataset report</title>"
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(dataset: Dataset) -> str:
    note = (
        "<p class=note>Made with a pack whose face networks know only rendered people: "
        "on real photographs take its decisions as suggestions.</p>"
        if dataset.synthetic
        else ""
    )
    return (
        f"<p class=eyebrow>Dataset report &middot; {escape(dataset.version)} &middot; "
        f"{dataset.created_at:%d %B %Y}</p><h1>{escape(dataset.persona)}</h1>"
        f"<p class=soft>Captions say <code>{escape(dataset.trigger)}</code> {escape(dataset.class_noun)}; "
        f"short side {dataset.short_side_px} px.</p>{note}"
    )


def _summary(dataset: Dataset) -> str:
    parts = [(split.value, SPLITS[split][0], len(dataset.accepted(split))) for split in SPLITS]
    parts.append(("aside", "Set aside", len(_with_status(dataset, Status.set_aside))))
    parts.append(("refused", "Could not be used", len(_with_status(dataset, Status.refused))))
    shown = [part for part in parts if part[2]]
    stack = "".join(f'<i class="{kind}" style="flex:{n}"></i>' for kind, _, n in shown)
    legend = "".join(f'<li><i class="dot {kind}"></i>{name} <b>{n}</b></li>' for kind, name, n in shown)
    return (
        f'<section class="card top"><div><div class=big>{len(dataset.accepted())}</div>'
        f"<div class=soft>of {_plural(len(dataset.photos), 'file')} ready</div></div>"
        f"<div><div class=stack>{stack}</div><ul class=legend>{legend}</ul></div></section>"
    )


def _links(parts: Mapping[str, str]) -> str:
    names = {
        "next": "What to photograph next", "coverage": "Coverage", "photos": "Photos",
        "moments": "Same moments", "flagged": "Worth a look", "aside": "Set aside",
        "unusable": "Could not be used", "decisions": "Your decisions",
        "extras": "Other pictures",
    }  # fmt: skip
    links = "".join(f'<a href="#{name}">{names[name]}</a>' for name, part in parts.items() if part)
    return f"<nav>{links}</nav>"


def _next(enough: str, sentences: Sequence[str]) -> str:
    title = f"<h2>What to photograph next</h2><p class=soft>{escape(enough)}"
    if not sentences:
        return f"{title} Nothing is missing.</p>"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"{title}</p><ul class=next>{items}</ul>"


def _coverage(dataset: Dataset, coverage: Coverage) -> str:
    photos = dataset.accepted()
    places = {f"place {number}": n for number, n in enumerate(coverage.backdrops[:PLACES], 1)}
    tables = {
        "View": coverage.views, "Nod": coverage.pitch, "Light": coverage.light, "Shown": coverage.shown,
        "Expression": coverage.expression, "Scene": coverage.scene, "Worn": coverage.worn,
        "Background": places,
    }  # fmt: skip
    said = {name: table for name, table in tables.items() if set(table) - {"not said"}}
    cards = "".join(
        f"<div class=card><h3>{name}</h3>"
        f"{bars(table, coverage.photos, WANTED_VIEWS if name == 'View' else None)}</div>"
        for name, table in said.items()
    )
    turned = [(p.flags["yaw_deg"], p.split.value) for p in photos if p.split and "yaw_deg" in p.flags]
    strip = f'<div class="card wide"><h3>Turn of the head</h3>{turns(turned)}</div>' if turned else ""
    mirror = f"<p class=soft>{escape(dataset.asymmetry.sentence())}</p>" if dataset.asymmetry else ""
    return (
        "<h2>What the photos show</h2><p class=soft>Views, nods, light, how much is shown and backgrounds "
        "are measured in the whole photo; the rest is what captions say. A dashed frame is how many there "
        f"should be.</p><div class=three>{strip}{cards}</div>{mirror}"
    )


def _sheet(folder: Path, split: Split, photos: Sequence[Photo]) -> str:
    if not photos:
        return ""
    title, line = SPLITS[split]
    cells = "".join(_cell(folder, photo) for photo in photos)
    captions = "".join(
        f"<li><b>{escape(photo.source)}{_tag(photo)}</b>{escape(photo.caption)}</li>" for photo in photos
    )
    return (
        f'<h2><i class="dot {split.value}"></i>{title} <span class=soft>{len(photos)}</span></h2>'
        f"<p class=soft>{line} Touch or hover a picture for its caption.</p><div class=sheet>{cells}</div>"
        f"<details><summary>{_plural(len(photos), 'caption')}</summary>"
        f"<ul class=lines>{captions}</ul></details>"
    )


def _cell(folder: Path, photo: Photo) -> str:
    assert photo.path is not None
    flags = photo.flags
    numbers = [f"yaw {flags.get('yaw_deg', 0):+.0f}°", f"sharpness {flags.get('sharpness', 0):.0f}"]
    numbers += [photo.attributes["stress"]] if "stress" in photo.attributes else []
    numbers += [photo.bucket] if photo.bucket else []
    uri = data_uri(folder / photo.path, longest_px=LONGEST_PX, quality=86)
    caption = escape(photo.caption)
    mark = "<span class=mark>kept by you</span>" if photo.decision else ""
    return (
        f'<figure tabindex="0"><img alt="{caption}" src="{uri}">{mark}<figcaption>{caption}'
        f"<small>{escape(' · '.join(numbers))}</small><small>{escape(photo.source)}</small>"
        "</figcaption></figure>"
    )


def _tag(photo: Photo) -> str:
    return "<span class=tag>edited</span>" if photo.edited else ""


def _moments(folder: Path, dataset: Dataset) -> str:
    """Duplicates and bursts: what was kept is framed."""
    groups: dict[int, list[Photo]] = {}
    for photo in dataset.photos:
        if photo.group is not None:
            groups.setdefault(photo.group, []).append(photo)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return ""
    cards = ""
    for group in several:
        shown = sorted(group, key=lambda photo: photo.status is not Status.accepted)
        cells = "".join(_moment(folder, photo) for photo in shown)
        cards += f'<div class="card group"><div class=moment>{cells}</div></div>'
    return (
        f"<h2>Same moments <span class=soft>{len(several)}</span></h2><p class=soft>Near-duplicates and "
        f"bursts: the framed one stays, and all of a group are on one side.</p>"
        f"<div class=groups>{cards}</div>"
    )


def _moment(folder: Path, photo: Photo) -> str:
    won = ' class="won"' if photo.status is Status.accepted else ""
    sharp = f"<span>sharpness {photo.flags['sharpness']:.0f}</span>" if "sharpness" in photo.flags else ""
    caption = f"<figcaption>{escape(Path(photo.source).name)}{sharp}</figcaption>"
    return f"<figure{won}>{_picture(folder, photo)}{caption}</figure>"


def _why(folder: Path, title: str, line: str, photos: Sequence[Photo]) -> str:
    if not photos:
        return ""
    cells = "".join(_reason(folder, photo) for photo in sorted(photos, key=_reason_order))
    heading = f"<h2>{title} <span class=soft>{len(photos)}</span></h2>"
    return f"{heading}<p class=soft>{line}</p><div class=why>{cells}</div>"


def _reason(folder: Path, photo: Photo) -> str:
    reason, _, numbers = (photo.reason[:1].upper() + photo.reason[1:]).partition(" (")
    details = [photo.source, *([numbers.rstrip(")")] if numbers else [])]
    details += [photo.attributes[NOTE]] if NOTE in photo.attributes else []
    details += [photo.decision] if photo.decision and photo.decision not in photo.reason else []
    caption = (f"<b>{escape(reason)}</b>" if reason else "") + "".join(
        f"<span>{escape(line)}</span>" for line in details
    )
    return f"<figure>{_picture(folder, photo)}<figcaption>{caption}</figcaption></figure>"


def _picture(folder: Path, photo: Photo) -> str:
    name = photo.path or photo.thumb
    if name is None or not (folder / name).is_file():
        return '<div class=none aria-hidden="true">no picture</div>'
    return f'<img alt="" src="{data_uri(folder / name, longest_px=SMALL_PX, quality=78)}">'


def _decisions(dataset: Dataset) -> str:
    said = [photo for photo in dataset.photos if photo.decision]
    edited = [photo for photo in dataset.accepted() if photo.edited]
    if not said and not edited:
        return ""
    lines = [f"<li><b>{escape(photo.source)}</b>{escape(photo.decision)}</li>" for photo in said]
    lines += [f"<li><b>{escape(photo.source)}</b>caption written by you</li>" for photo in edited]
    return (
        f"<h2>Your decisions <span class=soft>{len(lines)}</span></h2><p class=soft>They hold for every "
        "later version, until <code>oblik dataset undo</code>.</p>"
        f"<details open><summary>{_plural(len(lines), 'decision')}</summary><ul class=lines>{''.join(lines)}"
        "</ul></details>"
    )


def _extras(folder: Path, kind: Kind, extras: Sequence[Extra]) -> str:
    if not extras:
        return ""
    title, line = EXTRAS[kind]
    step = max(1, len(extras) // SAMPLES)
    cells = "".join(
        f'<figure tabindex="0"><img alt="{escape(extra.caption)}" '
        f'src="{data_uri(folder / extra.path, longest_px=SMALL_PX, quality=82)}">'
        f"<figcaption>{escape(extra.caption)}</figcaption></figure>"
        for extra in extras[: SAMPLES * step : step]
    )
    shown = f" {SAMPLES} of them:" if len(extras) > SAMPLES else ""
    return (
        f"<h2>{title} <span class=soft>{len(extras)}</span></h2><p class=soft>{line}{shown}</p>"
        f"<div class=sheet>{cells}</div>"
    )


def _foot(dataset: Dataset) -> str:
    hidden = ("inputs", "inputs_without_captions")
    tools = ", ".join(f"{name} {version}" for name, version in dataset.tools.items() if name not in hidden)
    return (
        f"<footer><p>Faces by <code>{escape(dataset.face_stack)}</code>, captions from "
        f"<code>{escape(dataset.caption_source)}</code>. Written images carry no metadata. "
        f"Consent <code>{escape(dataset.consent_sha256[:16])}</code>. {escape(tools)}.</p>"
        "<p>This page holds pictures of a person. It was written for its owner's eyes only.</p></footer>"
    )


def _with_status(dataset: Dataset, status: Status) -> list[Photo]:
    return [photo for photo in dataset.photos if photo.status is status]


def _reason_order(photo: Photo) -> tuple[str, str]:
    return photo.reason.split(" (")[0].split(" as ")[0], photo.source


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
