"""How the places answer that content lives in: one folder a transport, each a Source or a Sink of
`blobflow.content`, or both.

A transport never imports the engine. Archives are read into the store and are layouts inside, root file
systems come out of archives; beyond that no transport imports another.
"""
