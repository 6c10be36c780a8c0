"""Why a request is refused: a status and one line."""

from __future__ import annotations

FORBIDDEN = 403
NOT_FOUND = 404
TOO_LARGE = 413
WRONG_TYPE = 415
NO_ROWS = 422
WRONG_VALUE = 400
LONGEST_MESSAGE = 400  # characters


class RefusedError(Exception):
    """A request that cannot be answered.

    Attributes:
      status: of the reply, from 400 on.
      message: one line for the user.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())[:LONGEST_MESSAGE]
