"""The trainer "kohya", against a script that takes sd-scripts' options and prints what it prints."""

from __future__ import annotations

import json
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.training.test_program import ended

from oblik.datasets.manifest import Dataset, Extra, Kind, Photo, Split, Status
from oblik.errors import BackendError, BackendUnavailable, InvalidInput, JobCancelled, OutOfMemory
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import sha256_file
from oblik.personas.persona import Consent, Persona, Scope
from oblik.progress import SilentProgress
from oblik.training.artifact import CURVES, WEIGHTS, TrainingLog, read_artifact
from oblik.training.backends.kohya_files import keep_best
from oblik.training.config import TrainConfig
from oblik.training.trainer import Trainer, TrainRequest, open_trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is started by its #! line")

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
STAND_IN = Path(__file__).with_name("sd_scripts_stand_in.py")
CONFIG = TrainConfig(steps=6, batch=2, rank=4, alpha=2.0, checkpoint_every=2, warmup_steps=20)
Seen = Callable[[], Any]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of sd-scripts with an environment of its own."""
    folder = tmp_path / "sd-scripts"
    (folder / "venv" / "bin").mkdir(parents=True)
    for name in ("train_network.py", "sdxl_train_network.py"):
        shutil.copyfile(STAND_IN, folder / name)
    program = folder / "venv" / "bin" / "accelerate"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text(encoding='utf-8')}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def trainer(checkout: Path) -> Trainer:
    return open_trainer("kohya", script=checkout / "train_network.py")


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the stand-in was given."""
    file = tmp_path / "seen.json"
    monkeypatch.setenv("STAND_IN_SEEN", str(file))
    return lambda: json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., TrainRequest]:
    """A request: four photos to learn from, two held out, two of other people; no face is needed."""
    data = tmp_path / "dataset"
    data.mkdir()
    photos, extras = [], []
    for n in range(6):
        Image.new("RGB", (64, 64), (n, n, n)).save(data / f"{n}.png")
        photos.append(
            Photo(
                source=f"{n}.jpg", source_sha256=str(n), status=Status.accepted, path=f"{n}.png",
                width_px=64, height_px=64, split=Split.train if n < 4 else Split.validation,
                caption=f"photo of <oblik_s> woman, in scene {n}",
            )
        )  # fmt: skip
    for n, kind in enumerate((Kind.class_image, Kind.negative)):
        Image.new("RGB", (64, 64), "red").save(data / f"e{n}.png")
        extras.append(
            Extra(
                kind=kind, path=f"e{n}.png", sha256="", width_px=64, height_px=64, bucket="1:1",
                caption=f"photo of a woman, {n}", origin="",
            )
        )  # fmt: skip
    dataset = Dataset(
        persona="s", version="v003", trigger="<oblik_s>", class_noun="woman", created_at=NOW,
        consent_sha256="c" * 64, face_stack="none", short_side_px=64, embeddings="", photos=photos,
        extras=extras,
    )  # fmt: skip
    (data / "dataset.json").write_text(dataset.model_dump_json(), encoding="utf-8")
    consent = Consent(
        kind="synthetic", signed_by="seed", signed_on=date(2026, 1, 1), scopes=frozenset({Scope.portraits})
    )
    persona = Persona(slug="s", trigger="<oblik_s>", class_noun="woman", consent=consent, created_at=NOW)

    def build(family: str = "stable_diffusion", *, sdxl: bool = False, resume: bool = False) -> TrainRequest:
        pack = tmp_path / "pack"
        for name in ("tokenizer", "tokenizer_2", "text_encoder_2") if sdxl else ("tokenizer",):
            (pack / name).mkdir(parents=True)
            (pack / name / "vocab.json").write_text("{}", encoding="utf-8")
        (pack / "model_index.json").write_text("{}", encoding="utf-8")
        manifest = Pack(name="sd", version="1", family=family, native_size_px=64, side_multiple_px=8)
        out = tmp_path / "loras" / "v001"
        out.mkdir(parents=True)
        return TrainRequest(
            pack=OpenPack(manifest=manifest, folder=pack), persona=persona, dataset=dataset, dataset_dir=data,
            out_dir=out, config=CONFIG, now=NOW, resume=resume,
        )  # fmt: skip

    return build


def value_in(file: Path) -> float:
    """The step that the stand-in wrote into a LoRA."""
    return float(struct.unpack("<f", file.read_bytes()[-4:])[0])


def left_in(loras: Path) -> list[str]:
    return sorted(place.name for place in loras.iterdir())


def test_the_lora_with_the_lowest_held_out_loss_becomes_the_artifact(
    trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen
) -> None:
    request = replace(request_of(), parent="v000", asked=frozenset({"steps", "rank"}))
    (request.pack.folder / "pack.lock").write_text("{}", encoding="utf-8")
    assert trainer.train(request, SilentProgress()) == request.out_dir
    made = read_artifact(request.out_dir)
    assert (made.trainer, made.version, made.steps, made.rank, made.alpha) == ("kohya", "v001", 4, 4, 2.0)
    assert (made.dataset, made.consent_sha256, made.token_id) == ("v003", "c" * 64, -1)
    assert (made.parent, made.device) == ("v000", ""), "which device accelerate took is not known"
    assert made.pack_lock_sha256 == sha256_file(request.pack.folder / "pack.lock")
    assert made.targets == ("lora_te", "lora_unet")
    assert value_in(request.out_dir / WEIGHTS) == 4
    log = TrainingLog.model_validate_json((request.out_dir / CURVES).read_bytes())
    assert [(point.step, point.train) for point in log.losses][:2] == [(1, 0.2), (2, 0.1)]
    assert {p.step: p.validation for p in log.losses if p.validation} == {2: 0.31, 4: 0.12, 6: 0.25}
    assert left_in(request.out_dir.parent) == ["kohya.log", "v001"]
    said = (request.out_dir.parent / "kohya.log").read_text(encoding="utf-8")
    assert "running training / 学習開始" in said
    assert said.index("2/6") < said.index("saving checkpoint: ") < said.index("6/6")


def test_photos_and_captions_lie_in_kohyas_layout(
    trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen, checkout: Path
) -> None:
    trainer.train(request_of(), SilentProgress())
    assert seen()["pictures"] == {
        "10_oblik_s woman": [f"photo of <oblik_s> woman, in scene {n}" for n in range(4)],
        "1_woman": ["photo of a woman, 0", "photo of a woman, 1"],
        "1_oblik_s woman": [f"photo of <oblik_s> woman, in scene {n}" for n in (4, 5)],
    }
    learned, kept = seen()["config"]["datasets"]
    assert [subset.get("is_reg", False) for subset in learned["subsets"]] == [False, True]
    assert (learned["resolution"], learned["batch_size"], kept["validation_split"]) == ([64, 64], 2, 1.0)
    assert (learned["min_bucket_reso"], learned["max_bucket_reso"]) == (64, 1024)
    assert seen()["tokenizers"] == ["openai_clip-vit-large-patch14"]
    assert (seen()["offline"], Path(seen()["folder"])) == ("1", checkout)
    args = seen()["args"]
    assert (args["network_dim"], args["network_alpha"], args["max_train_steps"]) == ("4", "2.0", "6")
    assert args["no_metadata"], "sd-scripts would write every caption into the LoRA"
    assert args["lr_warmup_steps"] == "6", "a warm-up longer than the run never ends"


def test_sdxl_has_a_script_of_its_own(
    trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen
) -> None:
    trainer.train(request_of(sdxl=True), SilentProgress())
    assert seen()["script"] == "sdxl_train_network.py"
    assert seen()["args"]["no_half_vae"], "SDXL's VAE gives nan in half precision"
    assert len(seen()["tokenizers"]) == 2


def test_an_sd_scripts_that_measures_nothing_gives_its_last_lora(
    checkout: Path, trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen
) -> None:
    script = checkout / "train_network.py"
    script.write_text(
        script.read_text(encoding="utf-8").replace("validate_every_n_steps", "none"), encoding="utf-8"
    )
    request = request_of()
    trainer.train(request, SilentProgress())
    assert (read_artifact(request.out_dir).steps, value_in(request.out_dir / WEIGHTS)) == (6, 6)
    assert "1_oblik_s woman" not in seen()["pictures"]


def test_a_torn_lora_is_not_taken(
    checkout: Path, trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    script = checkout / "train_network.py"
    script.write_text(
        script.read_text(encoding="utf-8").replace("validate_every_n_steps", "none"), encoding="utf-8"
    )
    monkeypatch.setenv("STAND_IN", "torn")
    request = request_of()
    trainer.train(request, SilentProgress())
    assert value_in(request.out_dir / WEIGHTS) == 4


def test_of_measured_loras_only_the_best_is_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / f"lora-step{step:08d}.safetensors").write_bytes(b"")
    keep_best(tmp_path, {2: 0.3, 4: 0.1})
    assert left_in(tmp_path) == ["lora-step00000004.safetensors", "lora-step00000006.safetensors"]
    keep_best(tmp_path, {})
    assert len(left_in(tmp_path)) == 2


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("crash", BackendError, "status 1:.*Traceback.*RuntimeError: the VAE and I disagree$"),
        ("memory", OutOfMemory, "CUDA out of memory"),
        ("nan", BackendError, "no number any more, at step 2"),
        ("nothing", BackendError, "without writing a LoRA"),
    ],
)
def test_what_went_wrong_reaches_the_user_and_no_photo_stays(
    how: str, error: type[BackendError], says: str, trainer: Trainer,
    request_of: Callable[..., TrainRequest], seen: Seen, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STAND_IN", how)
    request = request_of()
    with pytest.raises(error, match=f"(?s){says}") as caught:
        trainer.train(request, SilentProgress())
    assert caught.value.exit_status == 3
    assert caught.value.hint
    assert "CalledProcessError" not in caught.value.message, "that is accelerate's own traceback"
    assert left_in(request.out_dir.parent) == ["kohya.log"]


def test_cancelling_ends_the_script_and_what_it_started(
    trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """While it hangs nothing is printed; the wish to stop is heard all the same."""
    monkeypatch.setenv("STAND_IN", "hang")
    request, began = request_of(), time.monotonic()

    def started() -> bool:
        return (tmp_path / "seen.json").is_file() and isinstance(_read(tmp_path / "seen.json"), list)

    with pytest.raises(JobCancelled):
        trainer.train(request, SilentProgress(cancelled=started))
    assert time.monotonic() - began < 300
    assert all(ended(pid) for pid in seen())
    assert left_in(request.out_dir.parent) == ["kohya.log"]


def test_what_a_killed_run_left_behind_is_swept_away(
    trainer: Trainer, request_of: Callable[..., TrainRequest], seen: Seen
) -> None:
    request = request_of()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    photo = request.out_dir.parent / f".building-{ended.pid}-x" / "images" / "0000.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"a photo")
    trainer.train(request, SilentProgress())
    assert left_in(request.out_dir.parent) == ["kohya.log", "v001"]


def test_qwen_image_is_for_the_native_trainer(
    trainer: Trainer, request_of: Callable[..., TrainRequest]
) -> None:
    request = request_of("qwen_image")
    with pytest.raises(InvalidInput, match="cannot train the pack 'sd' of the family 'qwen_image'") as caught:
        trainer.train(request, SilentProgress())
    assert caught.value.hint == "oblik train --trainer native"
    assert left_in(request.out_dir.parent) == []


def test_settings_that_it_does_not_follow_are_refused_by_name(
    trainer: Trainer, request_of: Callable[..., TrainRequest]
) -> None:
    request = replace(request_of(), asked=frozenset({"steps", "rank", "text_layers", "sample_every"}))
    with pytest.raises(InvalidInput, match=r"does not follow sample_every, text_layers$"):
        trainer.train(request, SilentProgress())
    assert left_in(request.out_dir.parent) == []


def test_a_dataset_without_photos_is_refused(
    trainer: Trainer, request_of: Callable[..., TrainRequest]
) -> None:
    request = request_of()
    empty = replace(request, dataset=request.dataset.model_copy(update={"photos": []}))
    with pytest.raises(InvalidInput, match="no photo to learn from"):
        trainer.train(empty, SilentProgress())


def test_a_run_cannot_be_gone_on_with(trainer: Trainer, request_of: Callable[..., TrainRequest]) -> None:
    with pytest.raises(InvalidInput, match="cannot be gone on with"):
        trainer.train(request_of(resume=True), SilentProgress())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "kohya.script_path is not set"),
        ({"script": Path("/nowhere/train_network.py")}, "no train_network.py in /nowhere"),
        ({"accelerate": "/nowhere/accelerate"}, "no program /nowhere/accelerate"),
    ],
)
def test_what_is_not_there_is_named(
    options: dict[str, Any], says: str, checkout: Path, request_of: Callable[..., TrainRequest]
) -> None:
    if "accelerate" in options:
        options = {**options, "script": checkout / "train_network.py"}
    with pytest.raises(BackendUnavailable, match=says):
        open_trainer("kohya", **options).train(request_of(), SilentProgress())


def test_a_device_is_passed_on(checkout: Path, request_of: Callable[..., TrainRequest], seen: Seen) -> None:
    made = open_trainer("kohya", device="cuda:1", script=checkout).train(request_of(), SilentProgress())
    assert seen()["devices"] == "1"
    assert read_artifact(made).device == "cuda:1"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
