"""matopt's optimizers for PyTorch.

>>> optimizer = matopt.torch.Optimizer(model.parameters(), rule="muown", lr=0.02)
>>> optimizer = matopt.torch.Muon(matrices, lr=0.02)         # in the place of torch.optim.Muon; AdamW of torch.optim.AdamW
>>> matopt.torch.orthogonalize(x)                            # about U V^T of x = U S V^T
>>> matopt.torch.suggest_roles(names, shapes)                # which parameters are for such a rule
>>> matopt.torch.rules(), matopt.torch.settings("muown")     # what there is
"""

from ._adamw import AdamW
from ._functions import lr_of, orthogonalize, rules, settings, suggest_roles
from ._muon import Muon
from ._optimizer import Optimizer

__all__ = ["AdamW", "Muon", "Optimizer", "lr_of", "orthogonalize", "rules", "settings", "suggest_roles"]
