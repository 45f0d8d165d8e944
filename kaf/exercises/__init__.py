"""Checks of the exercises: ``from kaf.exercises import grade``, one module of checks per chapter."""

from kaf.exercises.grading import Exercise, Grade, Step, grade, step

__all__ = ["Exercise", "Grade", "Step", "grade", "step"]
