"""Grading: from untrusted files to verdicts, nbgrader's gradebook and the class report.

In the order in which data flows: submission.py reads what a student handed in; names.py and rules.py look at
its code without running it; verdicts.py probes it in the sandbox and judges; store.py keeps verdicts; bulk.py
does this for a class; gradebook.py and autograded.py write where nbgrader reads; report.py sums up.
"""
