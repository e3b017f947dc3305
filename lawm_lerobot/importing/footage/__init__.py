"""Footage: the forms in which pictures are stored. One class per form, and nothing outside asks which one it is."""

from lawm_lerobot.importing.footage.base import Footage, Probe, Reading, ShownPicture
from lawm_lerobot.importing.footage.pictures import NumberedPictures, ParquetPictures
from lawm_lerobot.importing.footage.video import DatasetVideo, VideoFile

__all__ = [
    "DatasetVideo",
    "Footage",
    "NumberedPictures",
    "ParquetPictures",
    "Probe",
    "Reading",
    "ShownPicture",
    "VideoFile",
]
