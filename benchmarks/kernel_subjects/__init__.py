"""Right and wrong backwards of kernels that store low precision: `SUBJECTS`."""

from benchmarks.kernel_subjects import attention, elementwise, normalization, probabilities, sums
from benchmarks.kernel_subjects.kernel import SUBJECTS, Subject

__all__ = ["SUBJECTS", "Subject", "attention", "elementwise", "normalization", "probabilities", "sums"]
