"""The process around a run: event loop, signals, files, schedule, metrics."""
