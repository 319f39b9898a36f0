"""A neural student: XLS-R, w2v-BERT or convolutions, trained by this project into a teacher's space, in one file.

Reading and writing a student's file, and embedding spans with it, belong here; the network is
`speech_mining.encoders.neural_network`, its training `speech_mining.training.distillation`. Importing this module
loads no torch.

The file is safetensors. Its header holds, as JSON under the name `student`, everything else that is needed: the format,
the network's shape, the languages, the limits, how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.encoders.batches import Positions, length_batches
from speech_mining.encoders.cards import sha256_once
from speech_mining.encoders.feeding import Room, Vectors, feed
from speech_mining.encoders.neural_inputs import INPUTS, SHORTEST_S, Floats, pad
from speech_mining.encoders.placement import Precision, placement
from speech_mining.encoders.protocol import Embedded, SpeechSpan, refuse_stranger
from speech_mining.encoders.sonar import SILENT_RANGE
from speech_mining.encoders.work import Refusal, Work, as_float32
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from torch import Tensor

    from speech_mining.encoders.neural_network import StudentNetwork

FORMAT = "speech-mining-neural-student-1"
CODE_VERSION = "1"
"""Part of every version: raise it when the same weights would give other vectors."""
_HEADER = "student"
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class StudentCard:
    """What a student's file says about itself.

    Args:
        architecture: `wav2vec2`, `w2v-bert` or `convolutions`.
        body: configuration of the body.
        pooling: of its states.
        activation: after the projection.
        dimension: length of a vector.
        languages: ISO 639-3 codes it was trained for.
        longest_s: the longest clip it was trained on; longer spans are rejected.
        shortest_s: the same for the shortest.
        trained: how it was trained, for people.
    """

    architecture: str
    body: Mapping[str, Any]
    pooling: str
    activation: str
    dimension: int
    languages: tuple[str, ...]
    longest_s: float
    shortest_s: float
    trained: Mapping[str, Any]


def is_neural_student(path: Path) -> bool:
    """Whether a file says in its header that it is one; reads no weights."""
    try:
        return bool(_header(path).get("format") == FORMAT)
    except (OSError, ValueError):
        return False


def read_card(path: Path) -> StudentCard:
    """What a student's file says about itself, read without its weights.

    Raises:
        EncoderError: the file is missing, damaged, or no neural student's.
    """
    try:
        told = _header(path)
    except OSError as error:
        raise EncoderError(
            f"The student's weights cannot be read from {path}: {error.strerror}.",
            expected="a .safetensors file",
            cause="the path is wrong, or training has not been run yet",
            fix="s2s train --config FILE --data ADDRESS --out FILE",
        ) from error
    except ValueError as error:
        raise _not_a_student(path, f"it is no safetensors file ({error})") from error
    if told.get("format") != FORMAT:
        raise _not_a_student(path, f"its format is {told.get('format')!r}")
    try:
        card = StudentCard(**{name: told[name] for name in StudentCard.__dataclass_fields__})
    except KeyError as error:
        raise _not_a_student(path, f"its header lacks {error}") from error
    if card.architecture not in INPUTS:
        raise _not_a_student(path, f"its architecture is {card.architecture!r}")
    return StudentCard(**{**vars(card), "languages": tuple(card.languages)})


def save_neural_student(card: StudentCard, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a student's file, float32; equal weights and an equal card give equal bytes."""
    from safetensors.torch import save_file

    told = json.dumps({"format": FORMAT, **asdict(card)}, sort_keys=True, ensure_ascii=True)
    stored = {name: weights[name].detach().float().cpu().contiguous() for name in sorted(weights)}
    with replacing(path) as part:
        save_file(stored, part, {_HEADER: told})


class NeuralStudent:
    """Speech to unit vectors in a teacher's space; a `speech_mining.encoders.protocol.SpeechEncoder`.

    A span's vector does not depend on what shares its batch, beyond the last digits of float32 (of float16 on CUDA).

    Args:
        path: a student's file.
        card: what it says about itself.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" is float16 on CUDA and float32 on the CPU.
        max_batch_seconds: audio in a batch, padding included; None is 240 on CUDA and 60 on the CPU. A batch that does
            not fit in memory is halved.
        batch_share: of that, in (0, 1]: less where an attempt before died of memory.
        feature_threads: batches whose features are computed in advance.
    """

    def __init__(
        self,
        path: Path,
        card: StudentCard,
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        max_batch_seconds: float | None = None,
        batch_share: float = 1.0,
        feature_threads: int = 1,
    ) -> None:
        self.path, self.card = path, card
        self.name = path.stem
        self.languages = frozenset(card.languages)
        self.dimension = card.dimension
        self._device, self._dtype = device, dtype
        self._max_batch_seconds, self._feature_threads = max_batch_seconds, feature_threads
        self._batch_share = batch_share

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        max_batch_seconds: float | None = None,
        batch_share: float = 1.0,
    ) -> NeuralStudent:
        """Read a student's card; its weights are loaded when the first span is embedded.

        Raises:
            EncoderError: the file is missing, damaged, or no neural student's.
        """
        return cls(
            path,
            read_card(path),
            device=device,
            dtype=dtype,
            max_batch_seconds=max_batch_seconds,
            batch_share=batch_share,
        )

    @cached_property
    def version(self) -> str:
        """Digest of the file, and our code's version."""
        return f"{sha256_once(self.path)[:12]}-neural-{CODE_VERSION}"

    def embed(self, items: Sequence[SpeechSpan], *, progress: Progress = silent) -> Embedded:
        """Embed spans; silent, NaN, too long or too short ones are rejected with a reason.

        Raises:
            EncoderError: a span's language is not among `languages`, or the weights are damaged.
        """
        for span in items:
            refuse_stranger(span, self, "no speech of that language was in its training")
        refusals = {item: reason for item, span in enumerate(items) if (reason := self._refusal(span))}
        work = Work(len(items), self.dimension, refusals, progress)
        if work.kept.size:
            self._embed_batches(items, work)
        return work.embedded()

    def _embed_batches(self, items: Sequence[SpeechSpan], work: Work) -> None:
        lengths = np.array([span.end_sample - span.start_sample for span in items], np.int64)
        usual = 240.0 if self._loaded.device.type == "cuda" else 60.0
        seconds = self._batch_share * (self._max_batch_seconds or usual)
        room = Room(lambda part: int(lengths[part].max()) * part.size)
        hear = INPUTS[self.card.architecture]

        def make(batch: Positions) -> dict[int, Floats]:
            return {int(item): hear(items[item].samples) for item in batch}

        def use(inputs: dict[int, Floats]) -> None:
            batch = np.array(list(inputs), np.int64)
            work.put_parts(room.run(batch, lambda part: self._loaded.vectors([inputs[int(item)] for item in part])))

        kept = work.kept
        batches = [kept[batch] for batch in length_batches(lengths[kept], int(seconds * SAMPLE_RATE_HZ))]
        for _ in feed(batches, make, use, ahead=self._feature_threads):
            pass

    @cached_property
    def _loaded(self) -> LoadedNetwork:
        device, dtype = placement(self._device, self._dtype)
        return LoadedNetwork(load_network(self.path, self.card), device, dtype)

    def _refusal(self, span: SpeechSpan) -> Refusal | None:
        return refuse(span.samples, self.card.shortest_s, self.card.longest_s)


class LoadedNetwork:
    """A student's network on its device."""

    def __init__(self, network: StudentNetwork, device: Any, dtype: Any) -> None:
        self.device, self._dtype = device, dtype
        self._network = network.to(device, dtype).eval()

    def vectors(self, inputs: Sequence[Floats]) -> Vectors:
        """Embed inputs as one batch: float32 (n, d), any length.

        Raises:
            RuntimeError: among others, when memory does not suffice; see `feeding.is_out_of_memory`.
        """
        import torch

        padded, lengths = pad(inputs)
        with torch.inference_mode():
            heard = torch.from_numpy(padded).to(self.device, self._dtype)
            return as_float32(self._network(heard, torch.from_numpy(lengths).to(self.device)))


def refuse(samples: npt.NDArray[np.float32], shortest_s: float, longest_s: float) -> Refusal | None:
    """Why a waveform can be neither embedded nor trained on, if it cannot."""
    duration_s = len(samples) / SAMPLE_RATE_HZ
    if duration_s < max(shortest_s, SHORTEST_S):
        return "too_short", f"{duration_s:.3f} s, at least {max(shortest_s, SHORTEST_S)} s"
    if duration_s > longest_s:
        return "too_long", f"{duration_s:.1f} s, at most {longest_s:g} s"
    if not np.isfinite(samples).all():
        return "not_a_number", "the waveform holds NaN or infinity"
    if np.ptp(samples) < SILENT_RANGE:
        return "silent", "the waveform never moves by a step of 16-bit audio"
    return None


def load_network(path: Path, card: StudentCard) -> StudentNetwork:
    """The network of a student's file, on the CPU, in float32.

    Raises:
        EncoderError: its tensors are damaged, or not those of the network that its card describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from speech_mining.encoders.neural_network import NetworkShape, build_network

    shape = NetworkShape(card.architecture, card.body, card.pooling, card.activation, card.dimension)
    network = build_network(shape)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        told = str(error).strip().splitlines()
        raise _not_a_student(path, f"its tensors cannot be loaded ({' '.join(told)[:200]})") from error
    return network


def _header(path: Path) -> dict[str, Any]:
    """The JSON under `student` in a safetensors header; empty where there is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = _table(json.loads(file.read(length)))
    return _table(json.loads(_table(header.get("__metadata__", {})).get(_HEADER, "{}")))


def _table(read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise ValueError(f"a {type(read).__name__} where a table of names was expected")
    return read


def _not_a_student(path: Path, found: str) -> EncoderError:
    return EncoderError(
        f"{path} holds no neural student: {found}.",
        expected=f"a safetensors file of format {FORMAT}",
        cause="the file is damaged, or it was made by another program or another version of this one",
        fix="train it again, or copy the file again",
    )
