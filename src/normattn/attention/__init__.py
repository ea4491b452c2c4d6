"""Attention mechanisms, one paper a file; every one obeys the contract in `_gate.py`."""

from ._gate import Gate as Gate
from .bam import BAM as BAM
from .cbam import CBAM as CBAM
from .controls import Half as Half
from .controls import NoAttention as NoAttention
from .ean import EAN as EAN
from .nam import NAM as NAM
from .nam import NAMChannel as NAMChannel
from .nam import NAMSpatial as NAMSpatial
from .registry import MECHANISMS as MECHANISMS
from .registry import Mechanism as Mechanism
from .registry import available as available
from .registry import create as create
from .registry import parse_list as parse_list
from .se import SE as SE
from .triplet import Triplet as Triplet
