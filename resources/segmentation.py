"""How recordings are cut, as the settings say."""

from __future__ import annotations

from resources.settings import SegmentationSettings
from speech_mining.segmentation.segmenter import SegmentationConfig
from speech_mining.segmentation.voice_activity import VoiceActivity


def segmentation_of(settings: SegmentationSettings) -> SegmentationConfig:
    """The library's own configuration."""
    return SegmentationConfig(
        min_s=settings.min_s,
        max_s=settings.max_s,
        max_gap_ms=settings.max_gap_ms,
        max_per_hour=settings.max_per_hour,
        max_ends=settings.max_ends,
        max_pad_ms=settings.max_pad_ms,
        voice_activity=VoiceActivity(
            threshold=settings.threshold,
            min_silence_ms=settings.min_silence_ms,
            min_speech_ms=settings.min_speech_ms,
            detector=settings.detector,
        ),
    )
