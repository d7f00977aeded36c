"""The verbs: one module each, imported when its verb is used."""
