"""Transfer: the states of steps, their schedule and permits, how blobs are staged, and what is retried.

runner         each step of a plan as a task, as soon as it may run
  step_states  which can run now            step_reports  how they go, for who watches
  admission    the permits that they hold   schedule      which of the ready ones start now
copying        one blob to one target       retry         what of it is tried again, and when
  ways         straight or staged, and by whom its bytes are read   line_rates  how fast its source is
  staging      which of the two             staging_area  blobs that pass through the store
backup  missing_content    a tag kept before it is overwritten; what a registry says that it lacks
carried        copies that a `Carrier` brings in place of this process
  carrying  copy_worker  arrival_codec      its seam, a worker's side, and what passes between them
"""
