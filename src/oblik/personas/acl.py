"""Folders for one Windows account only; elsewhere their modes (0700, 0600) do it.

In: a folder. Out: an access list that names the current user and nobody else, inherited by what is written
there later. Knows nothing of what lies in the folder.
Not guaranteed: an administrator can take any folder over.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from oblik.errors import BackendUnavailable


def icacls(folder: Path, user: str) -> list[str]:
    """The command that takes inherited rights away and gives ``user`` full access, below ``folder`` too."""
    return ["icacls", str(folder), "/inheritance:r", "/grant:r", f"{user}:(OI)(CI)F", "/Q"]


def account() -> str:
    """The current Windows account as ``DOMAIN\\user``."""
    domain, user = os.environ.get("USERDOMAIN", ""), os.environ.get("USERNAME", "")
    return f"{domain}\\{user}" if domain else user


def for_owner_only(folder: Path) -> Path:
    """On Windows, give ``folder`` the access list; return the folder."""
    if os.name == "nt":
        done = subprocess.run(icacls(folder, account()), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BackendUnavailable(
                f"{folder} could not be closed to other accounts: {done.stderr.strip()}",
                hint="choose a folder on an NTFS drive with --home",
            )
    return folder
