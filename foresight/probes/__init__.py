"""Probes that read places off token grids, and the controls no spatial number goes without."""

from foresight.probes.boxes import HIDDEN, Boxes, box_probe, coverage, heat_iou, iou
from foresight.probes.coco_map import Objects, Precision, average_precision, coco_documents
from foresight.probes.controlled import (
    CONSTANT,
    CONTROLS,
    FLOORS,
    PATCHES,
    POOLED,
    RANDOM,
    REFERENCES,
    SHUFFLED,
    Controlled,
    controlled,
)
from foresight.probes.grids import (
    FIT_TOKENS,
    WIDTH,
    Axes,
    TokenGrids,
    fit_axes,
    mean_pooled,
    patches,
    reduced,
    shuffled,
)
from foresight.probes.motion import hits, motion_probe
from foresight.probes.rebuild import BLOCK, RADIUS_PX, edge_f1, rebuilt, rebuilt_parts
from foresight.probes.sets import constant_set, set_probe

__all__ = [
    "BLOCK",
    "CONSTANT",
    "CONTROLS",
    "FIT_TOKENS",
    "FLOORS",
    "HIDDEN",
    "PATCHES",
    "POOLED",
    "RADIUS_PX",
    "RANDOM",
    "REFERENCES",
    "SHUFFLED",
    "WIDTH",
    "Axes",
    "Boxes",
    "Controlled",
    "Objects",
    "Precision",
    "TokenGrids",
    "average_precision",
    "box_probe",
    "coco_documents",
    "constant_set",
    "controlled",
    "coverage",
    "edge_f1",
    "fit_axes",
    "heat_iou",
    "hits",
    "iou",
    "mean_pooled",
    "motion_probe",
    "patches",
    "rebuilt",
    "rebuilt_parts",
    "reduced",
    "set_probe",
    "shuffled",
]
