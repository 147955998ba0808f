"""From a phone folder to a measured likeness with the bundled pack, small enough for two minutes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from oblik import studio
from oblik.datasets.manifest import Dataset, Split, Status, read_dataset
from oblik.errors import ConsentError, InvalidInput, OblikError
from oblik.flows.demo import KINDS, DemoResult
from oblik.generation.record import read_record
from oblik.likeness.report import read_report
from oblik.paths import Home, PersonaHome
from oblik.personas.persona import Persona
from oblik.personas.store import PersonaStore
from oblik.personas.trigger import token_ids
from oblik.settings import Settings
from oblik.training.artifact import MANIFEST, TOKEN, TOKENIZER, WEIGHTS, read_artifact

PHOTOS, STEPS, TOKEN_STEPS, PORTRAITS = 24, 60, 20, 4
WISHES: dict[str, Any] = {
    "seed": 900_011,
    "photos": PHOTOS,
    "portraits": PORTRAITS,
    "training": {"steps": STEPS, "token_steps": TOKEN_STEPS, "sample_every": 40},
    "plan": {"steps": 12},
}

pytestmark = pytest.mark.filterwarnings("ignore")


class Flow:
    """One finished demo with small settings, and where its parts lie."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.result: DemoResult = self.run()
        self.settings = Settings(home=self.result.home, device="cpu")
        self.folders: PersonaHome = Home(self.result.home).persona(self.result.persona)
        self.persona: Persona = PersonaStore(Home(self.result.home)).get(self.result.persona)
        self.artifact = self.folders.loras / "v001"
        self.dataset: Dataset = read_dataset(self.folders.datasets / "v001")

    def run(self) -> DemoResult:
        return studio.run_demo(Settings(device="cpu"), self.out, **WISHES)

    def batch(self, kind: str) -> Path:
        return self.folders.gallery / "demo" / kind


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    return Flow(tmp_path_factory.mktemp("flow") / "demo")


def test_every_part_lies_where_it_belongs(flow: Flow) -> None:
    for name in (WEIGHTS, TOKEN, TOKENIZER, MANIFEST, "training.json"):
        assert (flow.artifact / name).is_file(), name
    for kind in KINDS:
        assert len(list(flow.batch(kind).glob("*/*-seed*.png"))) == PORTRAITS
    for name in ("likeness.json", "roc.json", "roc.png", "scores.png"):
        assert (flow.batch("portraits") / name).is_file(), name
    assert flow.result.page.stat().st_size > 100_000
    assert re.fullmatch(r"likeness .*threshold .*; LoRA trained in .*", flow.result.summary)


def test_strangers_copies_and_the_damaged_file_stayed_out(flow: Flow) -> None:
    left = {photo.source: photo for photo in flow.dataset.photos if photo.status is not Status.accepted}
    reasons = " | ".join(photo.reason for photo in left.values())
    assert "somebody else" in reasons
    assert any(photo.status is Status.refused for photo in left.values())
    assert re.search(r"same (moment|picture)", reasons)
    assert len(flow.dataset.accepted(Split.train)) >= 6
    assert flow.dataset.accepted(Split.validation)


def test_nothing_of_the_camera_is_left_in_the_dataset(flow: Flow) -> None:
    from PIL import Image

    for photo in flow.dataset.accepted():
        image = Image.open(flow.folders.datasets / "v001" / str(photo.path))
        assert not image.getexif()
        assert image.info == {}


def test_the_trigger_is_one_id_and_every_caption_holds_it(flow: Flow) -> None:
    artifact = read_artifact(flow.artifact)
    assert token_ids(flow.artifact / TOKENIZER, artifact.trigger) == [artifact.token_id]
    assert all(photo.caption.count(artifact.trigger) == 1 for photo in flow.dataset.accepted())
    assert read_record(flow.batch("portraits") / "01").token_ids == [artifact.token_id]
    assert read_record(flow.batch("without_token") / "01").token_ids == []


def test_the_record_says_how_to_do_it_again_and_the_bytes_are_the_same(flow: Flow) -> None:
    found = studio.replay(flow.settings, flow.batch("portraits") / "01" / "record.json")
    assert found.differences == ()
    assert found.same == (True,)


def test_an_order_is_killed_and_goes_on_without_repeating_a_picture(flow: Flow, tmp_path: Path) -> None:
    """A real SIGKILL after the first batch; what was finished keeps its bytes."""
    order = tmp_path / "order.yaml"
    head = f"name: killed\npersona: {flow.result.persona}\ntype: grid\nseeds: [1, 2]\nquality: preview\n"
    order.write_text(head + "prompts: [in a park, in a room]\nplan: {steps: 4, batch: 1}\n", encoding="utf-8")
    typed = [
        sys.executable,
        "-m",
        "oblik",
        "--home",
        flow.result.home,
        "--device",
        "cpu",
        "order",
        "run",
        order,
    ]
    target = flow.folders.gallery / "orders" / "killed"
    running = subprocess.Popen([str(word) for word in typed])
    while running.poll() is None and len(list(target.glob("0*/record.json"))) < 2:
        time.sleep(0.05)
    running.kill()
    assert running.wait() != 0, "it was still at work"
    before = {path: path.read_bytes() for path in target.glob("0*[0-9]/*.png")}
    report = studio.run_order(flow.settings, order).report
    assert (report.state, len(report.pictures)) == ("done", 4)
    assert sum(picture.again for picture in report.pictures) >= 2
    assert {path: path.read_bytes() for path in before} == before
    found = studio.replay(flow.settings, target / "001-prompt-1")
    assert found.identical


def test_likeness_is_measured_with_and_without_the_token(flow: Flow) -> None:
    """What the scores must be is for benchmarks/likeness.py: sixty steps teach too little to say."""
    report = read_report(flow.batch("portraits"))
    assert report.calibration.impostor_identities >= 300
    assert report.calibration.impostor_scores >= 3000
    assert report.calibration.threshold_low <= report.calibration.threshold
    assert report.calibration.threshold <= report.calibration.threshold_high
    assert len(report.scores) == len(report.without_token) == PORTRAITS
    assert report.bleed is not None


def test_a_second_run_does_nothing_and_leaves_the_same_page(flow: Flow) -> None:
    """In a process of its own: what a set's order or a clock decided would differ there."""
    page = flow.result.page.read_bytes()
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from oblik import studio\nfrom oblik.settings import Settings\n"
        f"again = studio.run_demo(Settings(device='cpu'), Path({str(flow.out)!r}), **{WISHES!r})\n"
        "print(again.done, 'torch' in sys.modules, again.summary, sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    again = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert again.stdout.splitlines() == ["()", "False", flow.result.summary]
    assert flow.result.page.read_bytes() == page


def test_the_commands_work_on_what_the_flow_left(flow: Flow) -> None:
    asked = {"seeds": (5, 6), "steps": 8}
    with pytest.raises(InvalidInput, match="steps: 30 to 50, not 8"):
        studio.generate(flow.settings, "smiling, in a park", asked=asked)
    made = studio.generate(flow.settings, "smiling, in a park", asked=asked, preset="preview")
    assert made.record.plan.prompt.startswith(f"photo of {flow.persona.trigger} ")
    measured = studio.measure_likeness(flow.settings, made.folder)
    assert measured.report.images == 2
    assert read_record(made.folder).threshold == measured.report.calibration.threshold


@pytest.mark.parametrize("ask", ["train", "generate", "likeness", "replay"])
def test_without_consent_nothing_runs(flow: Flow, ask: str, tmp_path: Path) -> None:
    """The same home, seen by somebody whose consent was revoked."""
    home = Home(tmp_path / "home")
    revoked = flow.persona.consent.model_copy(update={"revoked_on": date(2026, 1, 1)})
    PersonaStore(home).create(flow.persona.model_copy(update={"consent": revoked}))
    settings = Settings(home=home.root, device="cpu", persona=flow.persona.slug)
    calls: dict[str, Callable[[], object]] = {
        "train": lambda: studio.train(settings),
        "generate": lambda: studio.generate(settings, "in a park"),
        "likeness": lambda: studio.measure_likeness(settings, flow.batch("portraits")),
        "replay": lambda: studio.replay(settings, flow.batch("portraits") / "01"),
    }
    with pytest.raises(ConsentError, match="revoked"):
        calls[ask]()


def test_the_record_names_nobody_but_the_slug(flow: Flow) -> None:
    text = (flow.batch("portraits") / "01" / "record.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["plan"]["persona"] == flow.persona.slug
    assert flow.persona.consent.signed_by not in text
    assert str(flow.out) not in text


def test_errors_are_ours(flow: Flow) -> None:
    with pytest.raises(OblikError) as refused:
        studio.generate(flow.settings, "anime portrait")
    assert "--style" in refused.value.hint
