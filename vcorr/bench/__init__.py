"""What this machine does with the operators and with a video: time and memory.

``operators`` needs torch and einops alone; ``propagation`` runs the command.
"""
