"""Read the JSON object of a request: every field is checked, and an error names the field."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from minigpt.config_fields import format_value
from minigpt.web.api_errors import ApiError
from minigpt.web.settings import Limits


class RequestFields:
    """The fields of a request.

    A field that is missing, and one that is null, have the default. A wrong value raises ApiError with status 400.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    @classmethod
    async def read(cls, request: Request, limits: Limits) -> "RequestFields":
        """Read the body of a request.

        Raises:
            ApiError: the body takes too long, or is not a JSON object.
        """
        try:
            async with asyncio.timeout(limits.body_seconds):
                body = await request.body()
        except TimeoutError:
            message = f"the body did not arrive within {limits.body_seconds:g} seconds: send it faster"
            raise ApiError(408, message, code="timeout") from None
        try:
            content = json.loads(body)
            json.dumps(content, ensure_ascii=False).encode()  # raises for half of a surrogate pair, which is no text
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
        if not isinstance(content, dict):
            raise ApiError(400, f"the body must be a JSON object, not {format_value(content)}", code="invalid_json")
        return cls(content)

    def get(self, name: str) -> Any:
        """Return the value of a field as it was sent, or None."""
        return self._content.get(name)

    def refuse(self, name: str, wanted: str) -> ApiError:
        """Return the error for a field with a wrong value; `wanted` says what the field must be."""
        return ApiError(400, f"{name} must be {wanted}, not {format_value(self.get(name))}", name)

    def read_integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self.read_optional_integer(name, low, high)
        return default if value is None else value

    def read_optional_integer(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number from `low` to `high`, or None."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, f"a whole number from {low} to {high}")
        return value

    def read_optional_number(self, name: str, low: float, high: float) -> float | None:
        """Return a number from `low` to `high`, or None."""
        value = self.get(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN is not within
            raise self.refuse(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def read_flag(self, name: str) -> bool:
        """Return true or false; false without the field."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return bool(value)

    def read_text(self, name: str, max_characters: int, default: str | None = None) -> str:
        """Return a text. Without a default the field is required."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.refuse(name, "a text")
        if len(value) > max_characters:
            raise ApiError(413, f"{name} has {len(value):,} characters, and the limit is {max_characters:,}", name)
        return value

    def read_texts(self, name: str, max_texts: int, max_characters: int) -> list[str]:
        """Return a list of texts; a single text is a list of one, and no text an empty list."""
        value = self.get(name)
        texts = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self.refuse(name, "a text or a list of texts")
        if len(texts) > max_texts or any(len(text) > max_characters for text in texts):
            raise ApiError(400, f"{name} may have {max_texts} texts of {max_characters:,} characters at most", name)
        return texts

    def refuse_unsupported(self, **neutral: Sequence[Any]) -> None:
        """Refuse fields that would change the answer and that this program does not have.

        Args:
            **neutral: for each such field the values that change nothing.
        """
        for name, values in neutral.items():
            value = self.get(name)
            if value is not None and not any(value == each for each in values):
                raise ApiError(400, f"{name} is not supported: leave it out", name, "unsupported_parameter")
