"""NCF under the names that PaddleRec's users know; it lies in fl_rec/nets/ncf.py."""

from fl_rec.nets.ncf import NCF as StaticModel

__all__ = ["StaticModel"]
