"""A student: a small speech encoder trained by this project into a teacher's text space.

Loading a student's weights and embedding spans with them belong here; how they are trained is
`speech_mining.training.student`. One stack of convolutions a language says for each 40 ms which meaning is spoken and
how much of it; a span's vector is the sum over its frames of the meanings' directions, turned to unit length. So a
recording is heard once, and each of its thousand overlapping candidates costs one sum.

A span's sum takes its own frames only, but the network hears 0.68 s to either side of a frame: words just outside a
span can colour its edge, words farther off cannot. Word order is not encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.encoders.features import HOP, log_mel
from speech_mining.encoders.protocol import Embedded, Rejected, SpeechSpan, refuse_stranger
from speech_mining.encoders.threads import torch_threads
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ, RejectionReason

if TYPE_CHECKING:
    import torch

FORMAT = "speech-mining-student-1"
SHIPPED = Path(__file__).parent / "weights" / "miniature.safetensors"

STEM_KERNELS = (5, 3)
KERNEL = 5
DILATIONS = (1, 1, 2, 2, 2)
STRIDE = 4
"""Feature frames to one frame of the network."""
REACH = ((STEM_KERNELS[0] - 1) + 2 * (STEM_KERNELS[1] - 1) + STRIDE * (KERNEL - 1) * sum(DILATIONS)) // 2
"""Feature frames the network hears to either side of a frame: 68, that is 0.68 s."""
CHUNK = 256
"""Frames of the network, 10.24 s: every pass has this shape, so results do not depend on the length."""

_CODE_VERSION = "1"
_FRAME_SAMPLES = STRIDE * HOP
_SHORTEST_S, _LONGEST_S = 0.2, 60.0
_SILENT_RMS = 5e-4  # -66 dBFS; the softest speech of an audiobook is 30 dB above
# In meanings: the shortest article says 0.7; noise at -50 dBFS comes to 0.13 a second, speech to 2 or more.
_LEAST_MEANING, _LEAST_MEANING_PER_S = 0.4, 0.1


@dataclass(frozen=True, eq=False)
class StudentWeights:
    """Everything a student's file holds.

    Args:
        networks: by language, the arrays of its network as `speech_mining.training.student.fold` names them, and
            `unknown.mean` (width,), `unknown.projection` (width, room): where speech of no known meaning goes.
        directions: float (meanings + room, dimension): what saying each meaning once adds to the vector; the last
            `room` rows are the place of the unknown.
        bias: float (dimension,): what every sum of directions is added to, orthogonal to them.
        emphasis: a sum is lengthened by its own length to this power before that.
        meanings: the names of the meanings, for people.
        trained: how it was trained, for people.
    """

    networks: Mapping[str, Mapping[str, npt.NDArray[np.floating]]]
    directions: npt.NDArray[np.floating]
    bias: npt.NDArray[np.floating]
    emphasis: float
    meanings: tuple[str, ...]
    trained: Mapping[str, str | int | float]


def save_student(weights: StudentWeights, path: Path) -> None:
    """Write a student's file, float16 safetensors; equal weights give equal bytes."""
    from safetensors.numpy import save

    arrays = {
        f"{language}.{name}": value for language, network in weights.networks.items() for name, value in network.items()
    }
    arrays |= {"directions": weights.directions, "bias": weights.bias}
    told = {
        "format": FORMAT,
        "emphasis": weights.emphasis,
        "languages": sorted(weights.networks),
        "meanings": weights.meanings,
        "trained": dict(weights.trained),
    }
    stored = {name: np.ascontiguousarray(arrays[name], np.float16) for name in sorted(arrays)}
    with replacing(path) as part:
        part.write_bytes(save(stored, {"student": json.dumps(told, sort_keys=True, ensure_ascii=True)}))


class Student:
    """Speech to unit vectors in a teacher's space; a `speech_mining.encoders.protocol.SpeechEncoder`.

    The same span of the same recording has the same vector, whatever is embedded with it and in which order.
    """

    name = "miniature"

    def __init__(self, weights: StudentWeights, *, version: str, name: str | None = None, threads: int = 1) -> None:
        self.name = name or self.name
        self.version = version
        self.threads = threads
        self.trained = weights.trained
        self.meanings = weights.meanings
        self.languages = frozenset(weights.networks)
        self.dimension = int(weights.directions.shape[1])
        self._networks = {language: _Network(arrays) for language, arrays in weights.networks.items()}
        self._directions = np.asarray(weights.directions, np.float64)
        self._bias = np.asarray(weights.bias, np.float64)
        self._emphasis = weights.emphasis

    @classmethod
    def load(cls, path: Path | None = None, *, threads: int = 1) -> Student:
        """Load a student's file; without a path, the one that ships with this project.

        Raises:
            EncoderError: the file is missing, damaged, or no student's.
        """
        path = path or SHIPPED
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EncoderError(
                f"The student's weights cannot be read from {path}: {error.strerror}.",
                expected="a .safetensors file",
                cause="the path is wrong, or training has not been run yet",
                fix="s2s train --recipe demo",
            ) from error
        digest = hashlib.sha256(content).hexdigest()[:12]
        name = None if path == SHIPPED else path.stem
        return cls(_parse(content, path), version=f"{digest}-{_CODE_VERSION}", name=name, threads=threads)

    def embed(self, items: Sequence[SpeechSpan], *, progress: Progress = silent) -> Embedded:
        """Embed spans.

        Spans shorter than 0.2 s or longer than 60 s, silent ones (below -66 dBFS), ones with NaN or infinite samples,
        and ones in which no speech is heard are rejected.

        Raises:
            EncoderError: a span's language is not among `languages`, or its waveform is not one-dimensional.
        """
        for span in items:
            refuse_stranger(span, self, "it was trained for other narrators")
        refused = {item: reason for item, span in enumerate(items) if (reason := _refusal(span))}
        vectors = np.zeros((len(items), self.dimension), np.float16)
        done = len(refused)
        progress(done, len(items))
        with torch_threads(self.threads):
            for group in _by_recording(items, refused):
                for item, heard in self._sums([items[index] for index in group]):
                    duration_s = len(items[group[item]].samples) / SAMPLE_RATE_HZ
                    if self._meaning(heard) < _LEAST_MEANING + _LEAST_MEANING_PER_S * duration_s:
                        refused[group[item]] = ("no_content", "no speech is heard in it")
                    else:
                        vectors[group[item]] = self._place(heard)
                    done += 1
                progress(done, len(items))
        kept = np.array([item for item in range(len(items)) if item not in refused], np.int64)
        rejected = tuple(Rejected(item, *refused[item]) for item in sorted(refused))
        return Embedded(vectors[kept], kept, rejected)

    def frames(
        self, waveform: npt.NDArray[np.float32], language: str, chunk: int, *, frames: int = CHUNK
    ) -> npt.NDArray[np.float64]:
        """What is heard in each frame of a chunk: float64 (frames, meanings + room).

        Frame j of chunk c is centred on sample 640 (c * frames + j); summed over a word's frames, its meaning's column
        comes to about 1.
        """
        first = (chunk * frames * STRIDE) - REACH
        return self._networks[language](log_mel(waveform, first, frames * STRIDE + 2 * REACH))

    def _sums(self, spans: Sequence[SpeechSpan]) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Sum the frames of spans of one recording; each span comes out when its last chunk has been heard.

        Sums add up chunk by chunk from a span's start, so they are the same whichever spans are asked for with it.
        """
        edges = np.array([(span.start_sample, span.end_sample) for span in spans], np.float64)
        edges = (edges + _FRAME_SAMPLES / 2) / _FRAME_SAMPLES
        first = (edges[:, 0] // CHUNK).astype(np.int64)
        last = (edges[:, 1] // CHUNK).astype(np.int64)
        waveform, language = spans[0].waveform, spans[0].language
        open_spans: dict[int, npt.NDArray[np.float64]] = {}
        starting = np.argsort(first, kind="stable")
        chunks = sorted({chunk for begin, end in zip(first, last, strict=True) for chunk in range(begin, end + 1)})
        for chunk in chunks:
            cumulated = _cumulated(self.frames(waveform, language, chunk))
            begin, end = np.searchsorted(first[starting], [chunk, chunk + 1])
            open_spans |= {int(item): np.zeros(cumulated.shape[1]) for item in starting[begin:end]}
            for item, summed in list(open_spans.items()):
                inside = np.clip(edges[item] - chunk * CHUNK, 0, CHUNK)
                summed += _at(cumulated, inside[1]) - _at(cumulated, inside[0])
                if last[item] == chunk:
                    yield item, open_spans.pop(item)

    def _meaning(self, heard: npt.NDArray[np.float64]) -> float:
        known = len(self.meanings)
        return float(heard[:known].sum() + np.linalg.norm(heard[known:]))

    def _place(self, heard: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
        content = heard @ self._directions
        placed = np.linalg.norm(content) ** self._emphasis * content + self._bias
        unit: npt.NDArray[np.float16] = (placed / np.linalg.norm(placed)).astype(np.float16)
        return unit


class _Network:
    """One language's convolutions, as plain arrays: no autograd, no modules."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.floating]]) -> None:
        import torch

        self._arrays = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in arrays.items()}

    def hidden(self, features: npt.NDArray[np.float32]) -> torch.Tensor:
        """Run the stack up to its last layer: features (frames, 40) to float32 (1, width, frames / 4)."""
        import torch
        from torch.nn.functional import conv1d

        arrays = self._arrays
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(features.T))[None]
            for stem in range(len(STEM_KERNELS)):
                x = torch.relu(conv1d(x, arrays[f"stem{stem}.weight"], arrays[f"stem{stem}.bias"], stride=2))
            for block, dilation in enumerate(DILATIONS):
                across, cut = arrays[f"block{block}.across"], (KERNEL - 1) * dilation // 2
                mixed = conv1d(x, across, dilation=dilation, groups=len(across))
                mixed = conv1d(mixed, arrays[f"block{block}.along"], arrays[f"block{block}.bias"])
                x = x[:, :, cut : x.shape[2] - cut] + torch.relu(mixed)
            return x

    def __call__(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What each frame adds to a sum: float64 (frames, meanings + room)."""
        import torch
        from torch.nn.functional import conv1d, softplus

        arrays = self._arrays
        with torch.inference_mode():
            hidden = self.hidden(features)
            spoken = conv1d(hidden, arrays["head.weight"], arrays["head.bias"])[0].T.double()
            said = torch.softmax(spoken[:, :-1], dim=1) * softplus(spoken[:, -1:])
            strange = (hidden[0].T.double() - arrays["unknown.mean"].double()) @ arrays["unknown.projection"].double()
            strange = strange / (torch.linalg.vector_norm(strange, dim=1, keepdim=True) + 1e-6)
            # The last meaning is "a word I do not know": how it sounds takes its place.
            heard: npt.NDArray[np.float64] = torch.cat([said[:, :-1], said[:, -1:] * strange], dim=1).numpy()
        return heard


def hidden_frames(
    network: Mapping[str, npt.NDArray[np.floating]], features: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """What a network's last layer hears: features (frames, 40) to float32 ((frames - 2 * REACH) / 4, width)."""
    detector, size = _Network(network), CHUNK * STRIDE
    blocks = [
        detector.hidden(np.asarray(features[start : start + size + 2 * REACH], np.float32))[0].T.numpy()
        for start in range(0, (len(features) - 2 * REACH) // STRIDE * STRIDE, size)
    ]
    return np.concatenate(blocks)[: (len(features) - 2 * REACH) // STRIDE]


def _cumulated(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, axis=0)])


def _at(cumulated: npt.NDArray[np.float64], position: float) -> npt.NDArray[np.float64]:
    """A cumulated sum between two frames: a frame that a span's edge cuts counts in part."""
    whole = min(int(position), len(cumulated) - 2)
    between: npt.NDArray[np.float64] = cumulated[whole] + (position - whole) * (cumulated[whole + 1] - cumulated[whole])
    return between


def _refusal(span: SpeechSpan) -> tuple[RejectionReason, str] | None:
    samples = span.samples
    duration_s = len(samples) / SAMPLE_RATE_HZ
    if duration_s < _SHORTEST_S:
        return "too_short", f"{duration_s:.3f} s, at least {_SHORTEST_S} s"
    if duration_s > _LONGEST_S:
        return "too_long", f"{duration_s:.1f} s, at most {_LONGEST_S:.0f} s"
    # An infinite or NaN sample makes the sum of squares so too.
    power = float(np.dot(samples, samples)) / len(samples)
    if not np.isfinite(power):
        return "not_a_number", "a sample is NaN or infinite"
    if power < _SILENT_RMS**2:
        return "silent", f"{10 * np.log10(max(power, 1e-20)):.0f} dBFS"
    return None


def _by_recording(items: Sequence[SpeechSpan], refused: Mapping[int, object]) -> list[list[int]]:
    """Group the accepted items by recording and language, in order of first appearance."""
    groups: dict[tuple[int, str], list[int]] = {}
    for item, span in enumerate(items):
        if item not in refused:
            groups.setdefault((id(span.waveform), span.language), []).append(item)
    return list(groups.values())


def _parse(content: bytes, path: Path) -> StudentWeights:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("student", "{}"))
    except (SafetensorError, ValueError) as error:
        raise _not_a_student(path, f"it is no safetensors file ({error})") from error
    if told.get("format") != FORMAT:
        raise _not_a_student(path, f"its format is {told.get('format')!r}")
    try:
        return StudentWeights(
            networks={language: _network_arrays(arrays, language) for language in told["languages"]},
            directions=arrays["directions"],
            bias=arrays["bias"],
            emphasis=float(told["emphasis"]),
            meanings=tuple(told["meanings"]),
            trained=told["trained"],
        )
    except KeyError as error:
        raise _not_a_student(path, f"it lacks {error}") from error


def _network_arrays(
    arrays: Mapping[str, npt.NDArray[np.floating]], language: str
) -> dict[str, npt.NDArray[np.floating]]:
    names = [f"stem{stem}.{part}" for stem in range(len(STEM_KERNELS)) for part in ("weight", "bias")]
    names += [f"block{block}.{part}" for block in range(len(DILATIONS)) for part in ("across", "along", "bias")]
    names += ["head.weight", "head.bias", "unknown.mean", "unknown.projection"]
    return {name: arrays[f"{language}.{name}"] for name in names}


def _not_a_student(path: Path, found: str) -> EncoderError:
    return EncoderError(
        f"{path} holds no student's weights: {found}.",
        expected=f"a safetensors file of format {FORMAT}",
        cause="the file is damaged, or it was made by another program or another version of this one",
        fix="git checkout the shipped file, or run s2s train --recipe demo",
    )
