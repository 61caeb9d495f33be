"""The local page of ``vcorr ui``: to paint labels, propagate them, correct and export.

It is a face of an output folder of ``vcorr propagate``; the folder is all its state. ``server`` runs it, ``app`` has
the addresses, ``guard`` says who may ask, ``session`` is what the pages share, ``painted`` and ``placed`` (masks and
keypoints; both are a ``label_folder``) and ``frames`` read and write. ``static/`` is the page: plain
JavaScript modules.
"""
