"""Libraries of a base, of artefacts and of the process: the distributions, and how each biz holds each library.

Here live installed distributions (`installed`; `distributions` for the base and for metadata), the decision how
a library is held (`holding`, `known`), compiled libraries loaded once for each content (`extensions`, `worlds`), and
libraries brought into the process by bizs (`resident`, `departure`).
"""
