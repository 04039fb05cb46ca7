"""How many bytes a label takes, at which fidelity and speed: a picture of every codec for one's own teacher and texts.

python -m labelgen.storage_benchmark --teacher MODEL -o FOLDER
"""
