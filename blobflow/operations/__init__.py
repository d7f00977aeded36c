"""What a client does besides mirroring: across an air gap, with tags, indexes and caches, and measuring."""
