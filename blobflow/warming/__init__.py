"""Composition: warming. Pull-through caches are made to fetch what their clients will ask for.

    pairs (image at its source → image at the edge)
      ─► resolve at the edge ─► read what is chosen of each image, through the edge
      ─► pull each blob through the edge, unless a glance shows that it is stored; the bytes are dropped
      ─► glance again, until what was pulled is stored or patience ends

Everything is asked of the edge alone, as its clients do, so the edge alone needs a way to the source.
`warm_cache` is the same for the store of this machine.
"""

from blobflow.warming.edges import SETTLE as SETTLE
from blobflow.warming.edges import warm as warm
from blobflow.warming.filling import warm_cache as warm_cache
from blobflow.warming.images import Warmth as Warmth
