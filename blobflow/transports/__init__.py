"""Transports: registries, the store, layouts and archives. One file or folder each, as Sources and Sinks of
`blobflow.content`. A transport never imports the engine, nor another transport."""
