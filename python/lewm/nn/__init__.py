"""The model in torch: what training needs, and the readable reference of the compiled core's arithmetic."""

from lewm.nn.model import LeWM
from lewm.nn.sigreg import SIGReg, sigreg

__all__ = ["LeWM", "SIGReg", "sigreg"]
