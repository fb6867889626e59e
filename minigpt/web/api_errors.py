"""Errors as the API reports them: a JSON object in OpenAI's form, and an HTTP status."""

import json
from typing import Any

from starlette.responses import JSONResponse, Response

from minigpt.errors import InputError, MinigptError, OutOfMemoryError

SERVER_ERROR = 500


class ApiError(Exception):
    """A request cannot be answered.

    Attributes:
        status: the HTTP status.
        message: one sentence that names the thing, its value and the way out.
        param: the field of the request that is wrong, or None.
        code: a word for programs, such as "model_not_found", or None.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @classmethod
    def from_exception(cls, error: Exception, param: str | None = None) -> "ApiError":
        """Return the error that the client sees: the program's own sentences, and nothing about unexpected errors.

        Args:
            error: what was raised.
            param: the field of the request that the error is about.
        """
        if isinstance(error, ApiError):
            return error
        if isinstance(error, OutOfMemoryError):
            return cls(503, str(error), param, "out_of_memory")
        if isinstance(error, InputError):
            return cls(400, str(error), param)
        if isinstance(error, MinigptError):
            return cls(SERVER_ERROR, str(error), param)
        return cls(SERVER_ERROR, "the server failed: its terminal shows the error", code="internal_error")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        kind = "server_error" if self.status >= SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(self.to_dict())

    def to_response(self) -> Response:
        """Return the answer to the request."""
        return JSONResponse(self.to_dict(), self.status, self.headers)
