"""The ladder: what each idea of the lecture is worth, measured on one text and with one budget."""

from minigpt.studies.ladder.directory import Ladder, LadderDirectory
from minigpt.studies.ladder.experiment import LadderExperiment, run_ladder
from minigpt.studies.ladder.rungs import FULL, RUNGS, Rung

__all__ = ["FULL", "RUNGS", "Ladder", "LadderDirectory", "LadderExperiment", "Rung", "run_ladder"]
