"""`s2s doctor`: what works on this machine, what is missing, and how to get it.

What belongs here is looking, never mending: each check is one function that says what it found or raises, so that a
broken package becomes a row of the table and not a crash. The network is not touched. SONAR's libraries are looked
at in a process of their own, since what their native parts do when they do not fit is not an exception.

What needs the orchestrator is not here: packages that have it offer checks through the entry point group
`speech_mining.checks` (see pyproject.toml), each a function that looks and returns a list of `Finding`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from speech_mining.errors import EncoderError, SpeechMiningError

State: TypeAlias = Literal["ok", "missing", "optional"]

DEMO_LANGUAGES = ("deu", "eng", "fra", "spa")
_LEAST_MEMORY_GIB = 4.0
_LEAST_DISK_GIB = 2.0
_SONAR_TIMEOUT_S = 180
_STYLES = {"ok": "green", "missing": "bold red", "optional": "yellow"}
_REINSTALL = "install this project again in a fresh environment: pip install -c constraints.txt ."
_SONAR_IS_FOR = "mining real audiobooks with SONAR"


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, whether it works, what was found, what it is for, and the fix where it does not."""

    name: str
    state: State
    found: str
    needed_for: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """One thing to look at. `look` returns what it found, or raises: then the state is missing, or optional."""

    name: str
    needed_for: str
    look: Callable[[], str]
    fix: str
    needed: bool = True

    def finding(self) -> Finding:
        """Look; whatever goes wrong is what was found."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # third-party warnings say nothing about this machine
                return Finding(self.name, "ok", self.look(), self.needed_for)
        except Exception as problem:
            told = str(problem) if isinstance(problem, AbsentError) else f"{type(problem).__name__}: {problem}"
            return Finding(self.name, "missing" if self.needed else "optional", told, self.needed_for, self.fix)


class AbsentError(SpeechMiningError):
    """What was looked for is not there; its text is what the row says."""


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of checks as JSON on standard output instead of a table.")
    ] = False,
) -> None:
    """Check what works on this machine and in its Dagster instance, what is missing, and how to get it.

    Nothing is changed, and no address is asked but that of the instance's own storage. The exit code is 0 if everything
    that the demo needs is there, and 1 if something is missing; what is only optional does not count.

    [bold]Examples[/]

      s2s doctor

      s2s doctor --json | jq '.[] | select(.state == "missing")'

      S2S_MODEL_DIR=models s2s doctor
    """
    findings = _examined(quiet=as_json)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Run every check; SONAR's, which takes seconds, beside the others."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        sonar = beside.submit(_sonar_findings)
        of_machine = [check.finding() for check in CHECKS]
        offered = [finding for point in _offers() for finding in _offered(point)]
        return [*of_machine, *offered, *sonar.result()]


def _offers() -> list[EntryPoint]:
    """The packages that look at more than the machine, by name."""
    return sorted(entry_points(group="speech_mining.checks"), key=lambda point: point.name)


def _offered(point: EntryPoint) -> list[Finding]:
    """What a package finds, or one row on why it cannot look."""
    try:
        findings: list[Finding] = point.load()()
    except Exception as problem:
        told = f"{type(problem).__name__}: {problem}"
        return [Finding(f"Checks of {point.name}", "optional", told, "looking at more than the machine", _REINSTALL)]
    return findings


def _examined(*, quiet: bool) -> list[Finding]:
    from rich.console import Console

    with Console(stderr=True, quiet=quiet).status("Looking at this machine ..."):
        return examine()


def _python() -> str:
    from importlib.metadata import metadata

    from packaging.specifiers import SpecifierSet

    wanted = metadata("speech-mining")["Requires-Python"]
    if platform.python_version() not in SpecifierSet(wanted):
        raise AbsentError(f"{platform.python_version()}, required is {wanted}")
    return f"{platform.python_version()} ({sys.executable})"


def _packages() -> str:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    stated = [Requirement(line) for line in requires("speech-mining") or []]
    wanted = [given for given in stated if given.marker is None or given.marker.evaluate({"extra": ""})]
    if wrong := [told for given in wanted if (told := _unmet(given))]:
        raise AbsentError("; ".join(wrong))
    return f"{len(wanted)} packages, each in a version that this project works with"


def _unmet(requirement: Any) -> str:
    """What is wrong with an installed package, or an empty text."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed (required: {requirement.specifier or 'any version'})"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} {installed} (required: {requirement.specifier})"


def _ffmpeg() -> str:
    import av

    decoders = [name for name in ("mp3", "flac", "aac", "vorbis", "opus") if name in av.codecs_available]
    if av.Codec("mp3", "r").name not in decoders:
        raise AbsentError(f"PyAV {av.__version__} decodes {', '.join(decoders)}, not mp3")
    libraries = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {libraries}; decodes {', '.join(decoders)}"


def _libsndfile() -> str:
    import soundfile

    return f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}"


def _voice_activity() -> str:
    from importlib.util import find_spec

    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise AbsentError("the package silero-vad is not installed")
    model = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    if not model.is_file():
        raise AbsentError(f"{model} does not exist")
    return f"{model.name}, {model.stat().st_size / 1e6:.1f} MB"


def _onnxruntime() -> str:
    import onnxruntime

    return f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"


def _torch() -> str:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return f"{torch.__version__}, {built}, {torch.get_num_threads()} threads"


def _cuda() -> str:
    import torch

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if not devices:
        raise AbsentError("no CUDA device")
    return "; ".join(f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices)


def _encoder_device() -> str:
    """Which one device an encoder of this process would take, and why; a fleet gives each process its own."""
    from speech_mining.encoders.placement import chosen_device, visible_in

    choice = chosen_device()
    return f"{choice.device}: {choice.why}; {visible_in(os.environ)}; one process takes one device"


def _faiss() -> str:
    import faiss

    return f"{faiss.__version__} ({faiss.get_compile_options().strip()}), {faiss.get_num_gpus()} GPUs"


def _processor() -> str:
    """Instruction sets of the processor; without VNNI the int8 product falls back to float32."""
    flags = set(_line_of(Path("/proc/cpuinfo"), "flags").split())
    wanted = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    if not {"avx512_vnni", "avx_vnni"} & flags:
        raise AbsentError(f"no VNNI ({', '.join(wanted) or 'no AVX2'})")
    return f"{_line_of(Path('/proc/cpuinfo'), 'model name')}: {', '.join(wanted)}"


def _line_of(path: Path, field: str) -> str:
    if not path.is_file():
        raise AbsentError(f"{path} cannot be read here")
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    raise AbsentError(f"{path} tells no {field}")


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} usable of {os.cpu_count()}"


def _memory() -> str:
    from speech_mining.memory_limit import memory_limit

    limit = memory_limit()
    return _enough(limit.total_bytes / 2**30, _LEAST_MEMORY_GIB, f"in all, {limit.why}")


def _disk() -> str:
    return _enough(shutil.disk_usage(Path.cwd()).free / 2**30, _LEAST_DISK_GIB, f"free in {Path.cwd()}")


def _enough(gib: float, least: float, where: str) -> str:
    if gib < least:
        raise AbsentError(f"{gib:.1f} GiB {where}, at least {least:.0f} GiB are needed")
    return f"{gib:.1f} GiB {where}"


def _shipped_encoder() -> str:
    from hashlib import sha256

    from safetensors import safe_open

    from speech_mining.encoders.student import SHIPPED

    if not SHIPPED.is_file():
        raise AbsentError(f"{SHIPPED} does not exist")
    with safe_open(SHIPPED, framework="numpy") as weights:
        tensors = len(list(weights.keys()))
    digest = sha256(SHIPPED.read_bytes()).hexdigest()
    return f"{SHIPPED.name}, {tensors} tensors, sha256 {digest}"


def _narration() -> str:
    import espeakng_loader

    library = Path(espeakng_loader.get_library_path())
    if not library.is_file():
        raise AbsentError(f"{library} does not exist")
    return f"{library.name} ({library.parent})"


CHECKS: tuple[Check, ...] = (
    Check("Python", "everything", _python, "make an environment with Python 3.10, 3.11 or 3.12"),
    Check("Python packages", "everything", _packages, _REINSTALL),
    Check("FFmpeg in PyAV", "decoding recordings", _ffmpeg, "pip install --force-reinstall av"),
    Check("libsndfile", "writing audio, loading fairseq2", _libsndfile, "pip install --force-reinstall soundfile"),
    Check(
        "Silero VAD model", "finding the silences", _voice_activity, "pip install --force-reinstall silero-vad==6.2.3"
    ),
    Check("onnxruntime", "finding the silences", _onnxruntime, "pip install --force-reinstall onnxruntime"),
    Check("PyTorch", "encoders, exact search", _torch, _REINSTALL),
    Check("FAISS", "approximate search", _faiss, "pip install --force-reinstall faiss-gpu==1.15.1"),
    Check("Shipped encoder", "the demo", _shipped_encoder, _REINSTALL),
    Check("Cores", "everything", _cores, "none"),
    Check("Memory", "everything", _memory, f"give the machine or container {_LEAST_MEMORY_GIB:.0f} GiB"),
    Check("Disk", "the home of the data", _disk, "free some space, or work in a directory of another disk"),
    Check(
        "CPU instructions",
        "fast exact search (int8, three times float32)",
        _processor,
        "none is needed: search runs in float32; a processor with AVX-512 VNNI or AVX-VNNI is faster",
        needed=False,
    ),
    Check(
        "CUDA devices",
        "embedding and searching at scale",
        _cuda,
        "none is needed for the demo; for a GPU install NVIDIA's driver and PyTorch built for its CUDA",
        needed=False,
    ),
    Check(
        "Encoder device",
        "embedding",
        _encoder_device,
        "set S2S_DEVICE to auto, cpu, cuda or cuda:<number>; give each process its own with CUDA_VISIBLE_DEVICES",
        needed=False,
    ),
    Check(
        "eSpeak NG",
        "making the demo's recordings again",
        _narration,
        'pip install "speech-mining[narration]"',
        needed=False,
    ),
)


def _sonar_findings() -> list[Finding]:
    """What a process of its own says about SONAR, or one row on how that process ended."""
    told: dict[str, Any] = {}

    def libraries() -> str:
        told.update(_asked_elsewhere())
        return str(told["libraries"])

    fix = f"{_REINSTALL}; torch, torchaudio and fairseq2 must be built for each other"
    rows = [Check("SONAR libraries", _SONAR_IS_FOR, libraries, fix, needed=False).finding()]
    return rows + [Finding(**row) for row in told.get("weights", [])]


def _asked_elsewhere() -> dict[str, Any]:
    code = "from speech_mining.cli.doctor import tell_of_sonar; tell_of_sonar()"
    try:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=_SONAR_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise AbsentError(f"importing fairseq2 took more than {_SONAR_TIMEOUT_S} s") from None
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise AbsentError(f"importing fairseq2 ended with code {ended.returncode}: {last}")
    told: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return told


def tell_of_sonar() -> None:
    """Print, as one line of JSON, SONAR's versions and which of its weights are here; run in a process of its own."""
    from importlib.metadata import version

    from speech_mining.encoders.sonar import SPEECH_CARD, TEXT_CARD, speech_languages

    languages = len(speech_languages())
    speech = {f"SONAR speech, {language}": SPEECH_CARD.format(language=language) for language in DEMO_LANGUAGES}
    asked = [(name, card, "checkpoint") for name, card in speech.items()]
    asked += [("SONAR text", TEXT_CARD, "checkpoint"), ("SONAR tokenizer", TEXT_CARD, "tokenizer")]
    libraries = f"sonar-space {version('sonar-space')}, fairseq2 {version('fairseq2')}, {languages} speech cards"
    rows = [asdict(_weights_finding(*given)) for given in asked]
    typer.echo(json.dumps({"libraries": libraries, "weights": rows}))


def _weights_finding(name: str, card: str, field: str) -> Finding:
    from speech_mining.encoders.sonar import locate_weights

    try:
        weights = locate_weights(card, field=field)
    except EncoderError as error:
        return Finding(name, "optional", error.found, _SONAR_IS_FOR, error.fix)
    if weights.path is not None:
        return Finding(name, "ok", str(weights.path), _SONAR_IS_FOR)
    fix = f"use it once where there is a network ({weights.uri}); offline, see docs/encoders.md"
    return Finding(name, "optional", f"{weights.file} is not on this machine", _SONAR_IS_FOR, fix)


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        told = [finding.found]
        if finding.state != "ok":
            told += [f"needed for: {finding.needed_for}", f"fix: {finding.fix}"]
        state = Text(finding.state, style=_STYLES[finding.state])
        table.add_row(state, Text(finding.name), Text("\n".join(told), overflow="fold"))
    console = Console()
    console.print(table)
    console.print(_verdict(findings))


def _verdict(findings: list[Finding]) -> str:
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        return f"[bold red]Missing:[/] {', '.join(missing)}. The demo cannot run before that is mended."
    absent = sum(finding.state == "optional" for finding in findings)
    return f"[green]Everything that the demo needs is here.[/] {absent} optional things are not."
