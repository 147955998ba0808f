"""The requests of the training tests, for whole trainings of a family."""

from __future__ import annotations

from tests.training.conftest import persona, tiny_ask, tiny_pack

__all__ = ["persona", "tiny_ask", "tiny_pack"]
