"""Look inside a run: pictures and pages of what it has learned."""

from minigpt.studies.look.view_input import ViewInput
from minigpt.studies.look.views import VIEWS, ViewResult, look

__all__ = ["VIEWS", "ViewInput", "ViewResult", "look"]
