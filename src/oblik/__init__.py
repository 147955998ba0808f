"""Oblik: a local, offline-first studio for one person's likeness."""

__version__ = "0.1.0"
