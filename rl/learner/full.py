"""Full fine-tuning in the form of an adapter: so it is published, proved, saved and exported as every other.

An adapter adds (alpha / r) · B A to a weight W [out, in]. With alpha = r, A the identity and B = ΔW it adds ΔW,
whatever ΔW is; where out < in, B is the identity and A = ΔW. An adapter has one rank r, here the largest min(out, in):
smaller pairs are padded with zeros, which get no gradient and stay zero.

So the gradient of ΔW is that of W, and AdamW or Muon on ΔW makes the update that it would make on W, but for weight
decay: it draws ΔW to 0, which is the base and not the origin.
"""

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from rl.learner.lora import ADAPTER


def make_full(model: nn.Module) -> None:
    """Turns the fresh LoRA pairs of a model into full differences, all zero; the identities are frozen for good."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            a_is_identity = layer.in_features <= layer.out_features
            with torch.no_grad():
                (a if a_is_identity else b).copy_(torch.eye(*(a if a_is_identity else b).shape))
                (b if a_is_identity else a).zero_()
            # by peft's own means: it would train both again whenever the adapter was switched off and on
            layer.frozen_peft_weight_names = {ADAPTER: ("lora_A",) if a_is_identity else ("lora_B",)}
            layer.set_adapter(ADAPTER)
