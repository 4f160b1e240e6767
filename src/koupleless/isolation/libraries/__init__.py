"""Libraries of a base, of artefacts and of the process: their distributions, and how each biz holds each of them.

Here live the index of distributions (`distributions`, `mentions`), the decision how a library is held (`holding`,
`known`), compiled libraries that are loaded once for each content (`extensions`, `worlds`), and libraries that bizs
brought into the process (`resident`, `departure`).
"""
