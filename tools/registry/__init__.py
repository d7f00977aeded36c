"""Registries for tests and measurements: one that misbehaves as told, and one with nothing behind it.

    faulty           the embedded registry with a journal of what is asked, and with faults; also a program
    faults           which request is struck, and what then happens, as values
    fault_state      what faults remember from request to request: rates, slots, tokens, Locations
    fault_transport  bodies on their way, with what faults do to them
    journal          what was asked, and the questions that tests put to it
    known            registries as they are known to be, each a list of faults
    zeros            blobs of zeros generated as they are read, uploads discarded; also a program

The first is spoken to as any registry, so that the client under test does not know.
"""
