"""What a pack lacks is said, with what does instead; photos of somebody else's folder are not read."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import pytest

from oblik.errors import BackendUnavailable, InvalidInput, NotFound
from oblik.faces.stack import FaceStack
from oblik.generation.adapters import (
    KINDS,
    FaceIdFile,
    Sight,
    editing,
    lack,
    no_closer,
    open_adapter,
    stack_command,
    usable,
    weights_of,
)
from oblik.generation.plan import AdapterName, Plan, Reference
from oblik.packs.catalogue import find_entry
from oblik.packs.manifest import Component, OpenPack, Pack, PackFile


def pack_of(folder: Path, family: str, *parts: str, name: str = "p") -> OpenPack:
    for part in parts:
        (folder / part).mkdir(parents=True)
    manifest = Pack(name=name, version="1", family=family, native_size_px=512, side_multiple_px=16)
    return OpenPack(manifest=manifest, folder=folder)


def plan_with(*references: Reference) -> Plan:
    return Plan(pack="p", persona="sitter", prompt="photo of a woman", seeds=(1,), references=references)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("family", ["qwen_image", "stable_diffusion"])
def test_a_bare_pack_lacks_every_adapter_and_says_what_does_instead(
    tmp_path: Path, name: AdapterName, family: str
) -> None:
    found = lack(name, pack_of(tmp_path, family))
    assert found is not None
    assert found.what.startswith(name)
    assert found.instead
    assert found.hint.startswith("oblik ")


def test_the_next_command_brings_the_part_where_it_can_be_had(tmp_path: Path) -> None:
    """The catalogue's option, or a training; what cannot be had in a family is not asked for."""

    def hint(adapter: AdapterName, family: str, name: str) -> str:
        found = lack(adapter, pack_of(tmp_path, family, name=name))
        assert found is not None
        return found.hint

    assert hint("edit-reference", "qwen_image", "qwen-image-16gb") == (
        "oblik pack pull qwen-image-16gb --with edit"
    )
    assert hint("edit-reference", "qwen_image", "p") == "oblik dataset build PHOTOS && oblik train"
    assert hint("identity-tokens", "qwen_image", "qwen-image-16gb") == "oblik adapter train"
    assert hint("identity-tokens", "stable_diffusion", "sd15").startswith("oblik generate ")
    projector = lack("identity-tokens", pack_of(tmp_path, "qwen_image"))
    assert projector is not None
    assert projector.sentence().endswith("; or get it: oblik adapter train")
    assert hint("edit-reference", "stable_diffusion", "sd15") == "oblik dataset build PHOTOS && oblik train"


def test_faceid_is_usable_where_its_file_says_how(tmp_path: Path) -> None:
    """Weights alone are not enough: it must be known whose vectors they understand."""
    pack = pack_of(tmp_path, "stable_diffusion", "faceid", name="sd15")
    assert usable(pack) is None
    found = lack("ip-adapter-faceid", pack)
    assert found is not None
    assert found.hint == "oblik pack pull sd15 --with faceid"
    told = {"face_stack": "buffalo_l", "weights": "w.bin"}
    (tmp_path / "faceid" / "faceid.json").write_text(json.dumps(told))
    assert usable(pack) == "ip-adapter-faceid"
    assert weights_of("ip-adapter-faceid", pack) == tmp_path / "faceid" / "w.bin"
    assert editing(pack) == "ip-adapter-faceid"


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_catalogues_faceid_names_its_weights_and_a_stack_that_can_be_had(name: str) -> None:
    (part,) = find_entry(name).select(None, ["faceid"])[-1:]
    told = FaceIdFile.model_validate(part.settings[KINDS["ip-adapter-faceid"].part])
    assert [file.path for file in part.files] == [f"faceid/{told.weights}"]
    assert stack_command(told.face_stack) == "oblik --face-stack buffalo_l generate ..."


def test_a_file_that_the_packs_version_does_not_name_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "sitter").mkdir()
    (tmp_path / "sitter" / "a.png").write_bytes(b"png")
    sight = Sight(tmp_path, lambda: pytest.fail("nothing is looked at"))
    pack = pack_of(tmp_path / "pack", "qwen_image", "identity")
    file = tmp_path / "pack" / "identity" / "projector.safetensors"
    file.write_bytes(b"weights")
    plan = plan_with(Reference(image="a.png"))
    assert sight.sha256(plan, pack) == {
        "a.png": sha256(b"png").hexdigest(), "projector.safetensors": sha256(b"weights").hexdigest(),
    }  # fmt: skip
    listed = PackFile(path="identity/projector.safetensors", bytes=7, sha256="")
    component = Component(source="x", licence="x", commercial_use=True, files=[listed])
    manifest = pack.manifest.model_copy(update={"components": {"identity": component}})
    assert sight.sha256(plan, pack.model_copy(update={"manifest": manifest})).keys() == {"a.png"}


def test_the_parts_are_where_the_catalogue_puts_them() -> None:
    """What is pulled for an adapter is what is looked for."""
    paths = {
        part.option: {
            PurePosixPath(path).parts[0] for path in (*part.settings, *(f.path for f in part.files))
        }
        for name in ("qwen-image-16gb", "sdxl", "sd15")
        for part in find_entry(name).parts
    }
    for kind in KINDS.values():
        if not kind.get.startswith("oblik "):
            assert PurePosixPath(kind.part).parts[0] in paths[kind.get]


def test_the_part_makes_identity_tokens_usable_in_its_family_only(tmp_path: Path) -> None:
    part = "identity/projector.safetensors"
    assert usable(pack_of(tmp_path / "a", "qwen_image", part)) == "identity-tokens"
    assert usable(pack_of(tmp_path / "b", "stable_diffusion", part)) is None


def test_an_unavailable_adapter_is_an_error_with_the_alternative(tmp_path: Path) -> None:
    plan = plan_with(Reference(image="a.png", adapter="edit-reference"))
    with pytest.raises(BackendUnavailable, match="has no edit") as refused:
        open_adapter(plan, pack_of(tmp_path, "qwen_image"))
    assert "oblik train" in refused.value.hint


@pytest.mark.parametrize(
    "references",
    [
        (Reference(image="a.png", weight=0.5), Reference(image="b.png", weight=0.6)),
        (Reference(image="a.png", face_mask_only=False),),
    ],
)
def test_what_references_cannot_mean_is_refused(tmp_path: Path, references: tuple[Reference, ...]) -> None:
    with pytest.raises(InvalidInput):
        open_adapter(
            plan_with(*references), pack_of(tmp_path, "qwen_image", "identity/projector.safetensors")
        )


def test_a_reference_is_a_photo_of_the_plans_persona(tmp_path: Path) -> None:
    for slug in ("sitter", "other"):
        (tmp_path / slug).mkdir()
        (tmp_path / slug / "a.png").write_bytes(b"png")
    sight = Sight(tmp_path, lambda: pytest.fail("nothing is looked at"))
    assert sight.photos(plan_with(Reference(image="a.png"))) == [tmp_path / "sitter" / "a.png"]
    for image in ("../other/a.png", str(tmp_path / "other" / "a.png")):
        with pytest.raises(InvalidInput, match="is not of the persona"):
            sight.photos(plan_with(Reference(image=image)))
    with pytest.raises(NotFound):
        sight.photos(plan_with(Reference(image="b.png")))
    for nobody in (None, "..", "sitter/.."):
        with pytest.raises(InvalidInput, match="needs a persona"):
            sight.photos(plan_with(Reference(image="a.png")).model_copy(update={"persona": nobody}))


def test_a_face_is_taken_only_where_it_comes_closer_to_the_photos() -> None:
    """The stack here reads a vector off the first two pixels; without them there is no face."""

    class Reading:
        name = "reading"

        def detect(self, image: Any) -> list[str]:
            return ["face"] if image.any() else []

        def embed(self, image: Any, _face: object) -> Any:
            vector_2 = image[0, :2, 0].astype(np.float32)
            return vector_2 / np.linalg.norm(vector_2)

    def picture(*values: int) -> Any:
        return np.array([[[value] * 3 for value in values]], np.uint8)

    stack, photos_N2 = cast(FaceStack, Reading()), np.eye(2, dtype=np.float32)
    near, far, nobody = picture(9, 8), picture(9, 1), picture(0, 0)
    assert no_closer(stack, photos_N2, far, near) == ""
    assert no_closer(stack, photos_N2, nobody, far) == ""
    assert no_closer(stack, photos_N2, near, far) == "its face comes no closer to the photos (1.00, now 0.78)"
    assert no_closer(stack, photos_N2, near, near)
    assert no_closer(stack, photos_N2, far, nobody)
