"""Suites of tests as data sets have them: read their forms, and run the suites that are Python code."""
