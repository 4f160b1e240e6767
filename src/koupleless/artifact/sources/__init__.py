"""Sources of artefacts: zip, wheel and directory, each read through the protocols of ``content``.

Lives here: one file for each form of an artefact. May not: write files, know the store. `koupleless.artifact.source`
chooses the source for a path.
"""
