"""Zip archives: read without unpacking, and none of their tricks work."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from tests.photos.pictures import encoded, picture

from oblik.photos.archives import MAX_ENTRIES, open_archive
from oblik.photos.intake import Found, identify, list_files, read_original, read_photo, take


def pack(file: Path, contents: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


def rows(folder: Path) -> dict[str, Found]:
    found = (take(identify(folder, file), file)[0] for file in list_files(folder))
    return {one.source: one for one in found}


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_photos_in_an_archive_are_photos(tmp_path: Path, how: int) -> None:
    content = encoded("jpg")
    pack(tmp_path / "phone.ZIP", {"день/IMG_1.jpg": content, "notes.txt": b"x", "__MACOSX/._a": b"x"}, how)
    (file,) = list_files(tmp_path)
    found, image = take(identify(tmp_path, file), file)
    assert (found.source, found.refused) == ("phone.ZIP/день/IMG_1.jpg", "")
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert read_original(file) == content
    assert image is not None
    assert read_photo(file).size == image.size == (96, 80)
    assert [place.name for place in tmp_path.iterdir()] == ["phone.ZIP"]


def test_an_archive_in_a_folder_and_again_with_more_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "nested"
    folder.mkdir()
    contents = {"a.jpg": encoded("jpg")}
    pack(folder / "a.zip", contents)
    assert sorted(rows(tmp_path)) == ["nested/a.zip/a.jpg"]
    pack(folder / "a.zip", {**contents, "b.png": encoded("png")})
    assert sorted(rows(tmp_path)) == ["nested/a.zip/a.jpg", "nested/a.zip/b.png"]
    assert not any(row.refused for row in rows(tmp_path).values())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../outside.jpg", "(up)/(up)/outside.jpg"), ("/etc/outside.jpg", "etc/outside.jpg"),
        ("..\\..\\outside.jpg", "(up)/(up)/outside.jpg"), ("C:\\outside.jpg", "C_/outside.jpg"),
        ("a/../../../outside.jpg", "a/(up)/(up)/(up)/outside.jpg"),
    ],
)  # fmt: skip
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, shown: str) -> None:
    inside = tmp_path / "photos"
    inside.mkdir()
    (tmp_path / "outside.jpg").write_bytes(encoded("jpg"))
    pack(inside / "a.zip", {name: encoded("png")})
    assert {source: row.refused for source, row in rows(inside).items()} == {
        f"a.zip/{shown}": "its name leads out of the archive"
    }
    assert (tmp_path / "outside.jpg").read_bytes() == encoded("jpg")


def test_links_passwords_and_archives_inside_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("photo.jpg", encoded("jpg"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("empty.jpg", b"")
        archive.writestr("secret.jpg", encoded("jpg"))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for at in (content.rfind(b"PK\x03\x04") + 6, content.rfind(b"PK\x01\x02") + 8):
        content[at] |= 1  # the flag of an encrypted entry
    (tmp_path / "a.zip").write_bytes(bytes(content))
    reasons = {name.split("/")[1]: row.refused for name, row in rows(tmp_path).items()}
    assert reasons["link.jpg"] == "a link inside an archive"
    assert "archive inside an archive" in reasons["inner.zip"]
    assert "empty" in reasons["empty.jpg"]
    assert "password" in reasons["secret.jpg"]


def test_what_unpacks_to_a_hundred_times_its_size_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"bomb.png": bytes(30_000_000), "b.jpg": encoded("jpg")}, zipfile.ZIP_DEFLATED)
    found = rows(tmp_path)
    assert "times its size" in found["a.zip/bomb.png"].refused
    assert found["a.zip/b.jpg"].refused == ""


def declare(content: bytes, size: int) -> bytes:
    """Write another unpacked size into every entry of the table of contents."""
    changed, at = bytearray(content), content.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 24 : at + 28] = struct.pack("<I", size)
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def test_too_much_in_all_is_refused_and_a_lie_about_it_is_found(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.zip", {f"{i}.jpg": encoded("jpg") for i in range(3)})
    honest = file.read_bytes()
    file.write_bytes(declare(honest, 3_900_000_000))
    assert "would unpack to 12 GB" in rows(tmp_path)["a.zip"].refused
    file.write_bytes(declare(honest, 50))
    assert all("damaged" in row.refused for row in rows(tmp_path).values())


def test_too_many_files_and_overlapping_files_are_refused(tmp_path: Path) -> None:
    pack(tmp_path / "many.zip", {f"{i}.jpg": b"x" for i in range(MAX_ENTRIES + 1)})
    one = pack(tmp_path / "one.zip", {"a.jpg": encoded("jpg")}).read_bytes()
    entry, end = one[one.find(b"PK\x01\x02") : one.find(b"PK\x05\x06")], one[one.find(b"PK\x05\x06") :]
    table = b"".join(entry.replace(b"a.jpg", b"%d.jpg" % i) for i in range(9))
    end = end[:8] + struct.pack("<HHI", 9, 9, len(table)) + end[16:]
    (tmp_path / "one.zip").write_bytes(one[: one.find(b"PK\x01\x02")] + table + end)
    found = rows(tmp_path)
    assert f"{MAX_ENTRIES + 1} files" in found["many.zip"].refused
    assert "overlap" in found["one.zip"].refused


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_damaged_archive_is_one_row(tmp_path: Path, keep: float) -> None:
    content = pack(tmp_path / "a.zip", {"a.jpg": encoded("jpg")}).read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: int(len(content) * keep)])
    (tmp_path / "letter.zip").write_bytes(b"no archive at all")
    (tmp_path / "old.rar").write_bytes(b"Rar!")
    pack(tmp_path / "nothing.zip", {})
    found = rows(tmp_path)
    assert sorted(found) == ["a.zip", "letter.zip", "nothing.zip", "old.rar"]
    assert "not a readable zip" in found["a.zip"].refused
    assert "not a readable zip" in found["letter.zip"].refused
    assert "nothing in it" in found["nothing.zip"].refused
    assert "kind that is not opened" in found["old.rar"].refused


def test_a_damaged_entry_is_refused_alone(tmp_path: Path) -> None:
    noise = encoded("png", picture(seed=1))
    file = pack(tmp_path / "a.zip", {"a.png": noise, "b.png": encoded("png")})
    content = bytearray(file.read_bytes())
    content[len(noise) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    assert {name: bool(row.refused) for name, row in rows(tmp_path).items()} == {
        "a.zip/a.png": True, "a.zip/b.png": False,
    }  # fmt: skip


def test_equal_and_endless_names_stay_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for seed in range(2):
            archive.writestr(f"{'x' * 5000}{seed}.png", encoded("png", picture(seed=seed)))
        archive.writestr("a.png", encoded("png", picture(seed=0)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", encoded("png", picture(seed=1)))
    found = rows(tmp_path)
    assert len(found) == len({row.sha256 for row in found.values()} | {"a", "b"}) == 4
    assert all(len(name) < 255 for name in found)


def test_a_link_to_an_archive_is_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "photos"
    inside.mkdir()
    pack(tmp_path / "a.zip", {"a.jpg": encoded("jpg")})
    (inside / "b.zip").symlink_to(tmp_path / "a.zip")
    assert {name: row.refused for name, row in rows(inside).items()} == {
        "b.zip": "a link that leads out of the folder"
    }


def test_a_folder_may_be_called_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "b.jpg").write_bytes(encoded("jpg"))
    assert rows(tmp_path)["a.zip/b.jpg"].refused == ""
    assert open_archive(tmp_path / "a.zip").refused
