"""Prefetching: pull-through caches are made to fetch what their clients will ask for.

    pairs (image at its source → image at the edge)
      ─► resolve at the edge ─► read what is chosen of each image, through the edge
      ─► pull each blob through the edge, unless a look shows that it is stored; the bytes are dropped
      ─► look again, until what was pulled is stored or patience ends

Everything is asked of the edge alone, as its clients do, so the edge alone needs a way to the source.
`warm_store` is the same for the store of this machine.
"""

from blobflow.operations.prefetch.caches import STORE_SECONDS as STORE_SECONDS
from blobflow.operations.prefetch.caches import warm_caches as warm_caches
from blobflow.operations.prefetch.images import WarmResult as WarmResult
from blobflow.operations.prefetch.store import warm_store as warm_store
