"""What NCF is made of, under the name that PaddleRec's users know; it lies in fl_rec/nets/ncf.py."""

from fl_rec.nets.ncf import GMF, MLP, build, embedding, linear, structure

__all__ = ["GMF", "MLP", "build", "embedding", "linear", "structure"]
