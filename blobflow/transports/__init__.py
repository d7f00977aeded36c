"""Edges: how the world answers. One file or folder per transport, each a Source and/or a Sink of
`blobflow.content`. A transport never imports the engine, nor another transport."""
