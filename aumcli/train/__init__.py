"""aum train: from prepared data and a recipe to a model, the same bits for the same seed, data and machine.

Every random draw comes from a generator seeded by (seed, epoch, step, purpose). There is no random state to carry
along, so a run that was killed and resumed computes exactly what it would have computed.
"""

from aumcli.train.trainer import train

__all__ = ["train"]
