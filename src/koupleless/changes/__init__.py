"""Changes by bizs to Python modules they share with others: seen, kept to the biz, taken back.

Here live the comparison of shared Python modules with an earlier state (`baseline`, `changes`), the dispatchers which
call the function of the running biz (`forwarding`, `dispatch`), variables assigned by bizs (`assigned`), and the search
for the maker of a replacement (`origin`). Nothing here undoes registrations: `ownership` does. `container` calls
`Changes.watch`.
"""
