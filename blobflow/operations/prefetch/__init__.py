"""Prefetching: makes pull-through caches fetch what their clients will ask for.

    pairs (image at its source → image at the edge)
      ─► resolve at the edge ─► read what is chosen of each image, through the edge
      ─► pull each blob through the edge, unless a cache probe shows it stored; the bytes are dropped
      ─► probe again, until what was pulled is stored or the time is up

All requests go to the edge, as its clients' do, so only the edge needs access to the source.`warm_store` is
the same for the store of this machine.
"""

from blobflow.operations.prefetch.caches import STORE_SECONDS as STORE_SECONDS
from blobflow.operations.prefetch.caches import warm_caches as warm_caches
from blobflow.operations.prefetch.images import WarmResult as WarmResult
from blobflow.operations.prefetch.store import warm_store as warm_store
