"""What a student gains from soft labels: the same student, trained on the same tokens with each kind of label.

PYTHONPATH=benchmarks python -m student_gain --write

A student of a few million parameters, random at first, learns from labels of a real teacher for real text: hard labels,
top-k of several k, mass, draws, and the teacher's full distribution as the bound. All labels but the last are read from
labelstore datasets through labelstore.torch, as any student reads them. Then each student is compared with the teacher
on held-out text.
"""
