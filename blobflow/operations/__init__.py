"""Operations of a client besides mirroring: air-gap transfer, tags, indexes, prefetching, measuring."""
