"""Which engine runs: what this machine has, and what each engine needs."""

from __future__ import annotations

from speech_mining.errors import SettingsError
from speech_mining.knn.engines.protocol import Engine
from speech_mining.knn.products import int8_is_fast, int8_works

ENGINES = ("auto", "int8", "fp32", "cuda", "ivf", "faiss")
"""`ivf` is the approximate one: it is in `approximate`, and never what auto takes."""
INT8_DIMENSION = 128
"""Below it, folding the products takes longer than multiplying them in float32."""
GPU_PRODUCTS = 10**9
"""Searches of fewer products are over before a GPU has been woken."""


def choose_engine(engine: str, rows: int, columns: int, dimension: int) -> tuple[str, str]:
    """Name the engine that will run, and why.

    Args:
        engine: "auto", or the engine that is wanted.
        rows: of the source.
        columns: rows of the target.
        dimension: values in a row.

    Raises:
        SettingsError: this machine cannot run the engine that is wanted.
    """
    if engine == "auto":
        return _chosen(rows * columns, dimension)
    if engine == "cuda" and not cuda_device():
        raise SettingsError(
            "The cuda engine was asked for, and there is no CUDA device.",
            expected="an NVIDIA GPU that torch can see",
            cause="no GPU, no driver, or a CPU build of torch",
            fix='take engine "auto", which uses a GPU where there is one',
        )
    if engine == "int8" and not int8_works():
        raise SettingsError(
            "The int8 engine was asked for, and this torch does not multiply int8 matrices on the CPU.",
            fix='take engine "fp32", which gives the same neighbours',
        )
    return engine, f"{engine} was asked for"


def cuda_device() -> str:
    """Name of the first CUDA device, empty where there is none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def make_engine(name: str, dimension: int, device_share: float = 1.0) -> Engine:
    """The engine of that name, for rows of that many values; one on a GPU takes that share of its free memory."""
    if name == "int8":
        from speech_mining.knn.engines.int8 import Int8

        return Int8(dimension)
    if name == "cuda":
        from speech_mining.knn.engines.cuda import Cuda

        return Cuda(dimension, free_share=device_share)
    if name == "faiss":
        from speech_mining.knn.engines.flat import Flat

        return Flat(dimension)
    from speech_mining.knn.engines.fp32 import Fp32

    return Fp32(dimension)


def _chosen(products: int, dimension: int) -> tuple[str, str]:
    device = cuda_device()
    if device and products >= GPU_PRODUCTS:
        return "cuda", f"auto took cuda: {device} is here"
    if dimension < INT8_DIMENSION:
        return "fp32", f"auto took fp32: rows of {dimension} values gain nothing from int8"
    instructions = int8_is_fast()
    if not instructions:
        return "fp32", "auto took fp32: this processor has no int8 instructions (AMX, VNNI) known to be faster"
    if not int8_works():
        return "fp32", "auto took fp32: this torch does not multiply int8 matrices on the CPU"
    return "int8", f"auto took int8: this processor has {instructions}"
