"""The defect by its name: symptoms, the patterns that explain them, the declaration that would fit."""
