"""What should happen: resolve → survey → plan → transfer → verify → report.

Pure where it decides (plan, agenda, schedule, report), asynchronous where it acts (resolve, survey, transfer,
verify). It knows the words and the seam, and never a transport.
"""
