"""Projects of authors: made anew, or made of an application that is there.

Lives here: the templates' writer, and the search for the application of a project. May not: parse flags, print, import
code of a project.
"""
