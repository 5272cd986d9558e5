"""`make mutate`: break the library on purpose, one small change at a time, and see a test go red.

See docs/mutation.md.
"""
