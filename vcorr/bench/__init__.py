"""What this machine does with the operators and with a video: time, memory, and what else could have done the work.

``operators`` and ``accuracy`` need torch and einops alone; ``propagation`` runs the command.
"""
