"""Lightning's BackboneFinetuning, finetuning-scheduler and this package, side by side, under 17 conditions.

`python -m benchmarks.correctness` prints one table: a row for each condition, a column for each contestant. Every cell
is decided by a rule on numbers that were measured in that run; see the functions named ``measure_...``.

All contestants get the same module, data and Trainer, and the same wish: the head alone first, the whole backbone
from a given epoch on, at a tenth of the head's rate. The optimizer is made as both peers' documentation has it,
from the parameters with ``requires_grad`` (with ours, which freezes later, these are all parameters); the
row on ``self.parameters()`` is the exception. What each is given beyond that, chosen in its favour:

- BackboneFinetuning: ``backbone_initial_ratio_lr=0.1``, ``lambda_func`` constant and ``should_align=False``, so that
  the tenth stays a tenth; ``train_bn=False``, so that BatchNorm may stay frozen. It opens everything at once, so it
  has no part in the cases named gradual.
- finetuning-scheduler: an explicit schedule of two phases by regex, ``epoch_transitions_only=True`` so that phases open
  when the others do, ``restore_best=False`` so that it trains on from the same weights, ``apply_lambdas_new_pgs=True``
  as its documentation says for LambdaLR, ``frozen_bn_track_running_stats=False`` so that frozen BatchNorm does not
  drift; its default is measured beside it. ``no_decay`` on the module where groups without decay are asked for. Its
  ``FTSCheckpoint`` is added by hand, since it would add one itself. Where it refuses a scheduler,
  ``allow_untested=True`` is tried, too, and counts if it is right. A phase's rate is absolute there, so any constant
  factor between the opened group and the user's curve is accepted, from everyone.
- ours: the defaults of ``BackboneFreezeUnfreeze("lp_ft")`` and ``DiscriminativeLR(total_ratio=0.1)``.
"""
