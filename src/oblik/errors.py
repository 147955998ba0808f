"""Every error Oblik raises on purpose.

    OblikError
    |-- RequestError            exit 2   the request cannot be served as asked
    |   |-- ConsentError            no consent, expired, revoked or not for this scope
    |   |-- NotFound                persona, dataset, LoRA, pack, file
    |   |-- Conflict                already exists, or changed underneath
    |   |-- InvalidInput            a value out of range, an unusable photo folder
    |   |-- TokenBroken             the trigger token is not one id in this tokenizer
    |   `-- TwoPersonas             two people's LoRAs in one picture
    |-- BackendError            exit 3   the machine cannot do it now
    |   |-- BackendUnavailable      a missing extra, file or program
    |   |-- PackBroken              a pack file is missing or its hash is wrong
    |   |-- LoraBroken              LoRA keys that do not fit the model
    |   |-- OutOfMemory             no configuration fits
    |   |-- TooHot                  the card must cool down first
    |   |-- TrainingDiverged        the loss is no number any more, or grows
    |   `-- DiskFull                no room for the next file
    |-- JobCancelled            exit 4   somebody asked it to stop
    `-- JobLost                 exit 4   it is neither running nor finished

Each carries a message for a person, a stable ``code`` for programs, and a ``hint``: the next
command to type. A low likeness is a result, not an error.
"""

from __future__ import annotations

from typing import ClassVar


class OblikError(Exception):
    """Root of the tree. ``hint`` is the next thing to do, one line."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(OblikError):
    code = "request"
    exit_status = 2


class ConsentError(RequestError):
    code = "consent"


class NotFound(RequestError):
    code = "not_found"


class Conflict(RequestError):
    code = "conflict"


class InvalidInput(RequestError):
    code = "invalid_input"


class TokenBroken(RequestError):
    code = "token_broken"


class TwoPersonas(RequestError):
    code = "two_personas"


class BackendError(OblikError):
    code = "backend"
    exit_status = 3


class BackendUnavailable(BackendError):
    code = "backend_unavailable"


class PackBroken(BackendError):
    code = "pack_broken"


class LoraBroken(BackendError):
    code = "lora_broken"


class OutOfMemory(BackendError):
    code = "out_of_memory"


class TooHot(BackendError):
    code = "too_hot"


class TrainingDiverged(BackendError):
    code = "training_diverged"


class DiskFull(BackendError):
    code = "disk_full"


class JobCancelled(OblikError):
    code = "job_cancelled"
    exit_status = 4


class JobLost(OblikError):
    code = "job_lost"
    exit_status = 4
