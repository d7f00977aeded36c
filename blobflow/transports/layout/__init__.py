"""OCI image layouts (image-spec image-layout.md): the folder as Source and Sink, index.json, names and
referrers in it."""
