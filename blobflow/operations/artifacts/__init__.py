"""Artifacts: what hangs on an image, and files as artifacts.

tree      what refers to an image, to what is in it, and to that in turn
files     files and folders as the layers of an artifact
push      an artifact put at a place, on its own or attached to an image
pull      an artifact's files written into a folder
unpack    the folders among them
"""
