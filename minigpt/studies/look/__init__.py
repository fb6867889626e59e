"""Look inside a run: pictures and pages of what it has learned."""

from minigpt.studies.look.views import VIEWS, ViewInput, ViewResult, look

__all__ = ["VIEWS", "ViewInput", "ViewResult", "look"]
