"""The only door to the network: repositories of a model hub, by ``huggingface_hub``.

In: a repository, a revision, a file. Out: what the hub says of it; its bytes, appended to what is already
there. The hub is the one that ``HF_ENDPOINT`` names, else huggingface.co. Outside `online` that library
refuses to connect. Knows nothing of packs.

The library's own ``hf_hub_download`` is not used: it begins a file anew when its process was ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from oblik import __version__
from oblik.errors import BackendUnavailable, NotFound, OblikError
from oblik.packs.sources import Listing, Remote, Tick, Wanted

PUBLIC = "https://huggingface.co"
TIMEOUT_S = 30
OFFLINE_COPY = "or copy the files by hand: oblik pack pull NAME --from DIR"


class HubSource:
    """A model hub. The address is read when the source is made."""

    def __init__(self) -> None:
        self.endpoint = (os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")

    @property
    def name(self) -> str:
        return self.endpoint

    def listing(self, repository: str, revision: str | None) -> Listing:
        with online(), _explained(self.endpoint, repository, revision or "the newest revision"):
            from huggingface_hub import HfApi

            hub = HfApi(endpoint=self.endpoint, library_name="oblik", library_version=__version__)
            info = hub.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        files = {
            file.rfilename: Remote(file.lfs.size, sha256=file.lfs.sha256)
            if file.lfs
            else Remote(file.size or 0, git_sha1=file.blob_id)
            for file in info.siblings or []
        }
        if info.sha is None:
            raise BackendUnavailable(
                f"{self.endpoint} does not name a commit of {repository}", hint="is HF_ENDPOINT a model hub?"
            )
        return Listing(info.sha, files)

    def fetch(self, wanted: Wanted, part: Path, tick: Tick) -> None:
        with online(), _explained(self.endpoint, wanted.repository, wanted.file):
            from huggingface_hub import hf_hub_url, utils
            from huggingface_hub.file_download import http_get

            url = hf_hub_url(wanted.repository, wanted.file, revision=wanted.commit, endpoint=self.endpoint)
            headers = cast(Any, utils).build_hf_headers(library_name="oblik", library_version=__version__)
            headers["Accept-Encoding"] = "identity"
            with part.open("ab") as file:
                http_get(
                    url, cast(Any, file), resume_size=file.tell(), headers=headers,
                    expected_size=wanted.remote.bytes, tqdm_class=cast(Any, _ticker(tick)),
                )  # fmt: skip


@contextmanager
def online() -> Iterator[None]:
    """Let ``huggingface_hub`` connect in this block, quietly and without telemetry; then forbid it."""
    from huggingface_hub import constants, logging

    verbosity = logging.get_verbosity()
    cast(Any, logging).set_verbosity_error()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = True
        logging.set_verbosity(verbosity)


@contextmanager
def _explained(endpoint: str, repository: str, what: str) -> Iterator[None]:
    """Say in our words what the hub refused, or that it cannot be reached."""
    from huggingface_hub import errors

    try:
        yield
    except OblikError:
        raise
    except errors.GatedRepoError as refused:
        raise BackendUnavailable(
            f"{repository} is gated: its terms must be agreed to at {endpoint}/{repository}",
            hint="agree there, then: hf auth login, and the same command again",
        ) from refused
    except errors.RevisionNotFoundError as missing:
        raise NotFound(
            f"{repository} has no revision {what}", hint=f"{endpoint}/{repository}/tree/main"
        ) from missing
    except errors.EntryNotFoundError as missing:
        raise NotFound(
            f"{repository} has no file {what}", hint=f"{endpoint}/{repository}/tree/main"
        ) from missing
    except errors.RepositoryNotFoundError as missing:
        raise NotFound(
            f"{endpoint} has no repository {repository}, or it is private",
            hint="if it is private: hf auth login",
        ) from missing
    except errors.HfHubHTTPError as refused:
        status = refused.response.status_code
        raise BackendUnavailable(
            f"{endpoint} answered {status} for {what} of {repository}",
            hint=f"the same command later, {OFFLINE_COPY}",
        ) from refused
    except Exception as broken:
        if isinstance(broken, OSError) and broken.errno is not None:
            raise
        raise BackendUnavailable(
            f"the connection to {endpoint} failed: {broken}",
            hint=f"the same command goes on where it stopped; check HF_ENDPOINT, {OFFLINE_COPY}",
        ) from broken


def _ticker(tick: Tick) -> type:
    """A progress bar as the library wants one, that tells ``tick`` how many bytes came."""

    class Ticker:
        def __init__(self, **_: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            tick(int(n or 0))

        def __enter__(self) -> Ticker:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Ticker
