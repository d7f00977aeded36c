"""The documentation as it is checked and made: its blocks, its commands, what they print, the reference.

documents   Markdown files and what stands in them
commands    the `blobflow …` lines of a text, down to the verb's parameters, without running it
consoles    ```console blocks: their commands run in a world of registries on loopback
reference   the pages of docs/reference, generated from the verbs
"""
