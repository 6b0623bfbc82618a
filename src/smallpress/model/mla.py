"""Multi-head latent attention (DeepSeek-V2 and V3), in two forms that give the same numbers.

Of each token there is one latent c, after its norm, and one rotated key r that all heads share. Head h has the keys
[K_h c; r] and the values V_h c, where K_h and V_h are its rows of `kv_b`:

    plain:     score = q_h . [K_h c; r]               out_h = sum p V_h c
    absorbed:  score = [K_h^T q_nope; q_rope] . [c; r]   out_h = V_h (sum p c)

The plain form multiplies less where many queries meet many keys, and is the one to train. The absorbed form never makes
a head's keys: the cache holds c and r alone, and all heads read it as one kv head, whose values are part of its keys.
"""

import torch
from torch import Tensor, nn

from smallpress.model.config import MLA, ModelConfig
from smallpress.model.frequencies import softmax_scale
from smallpress.model.gqa import Attend
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import Tables, rotate


class LatentAttention(nn.Module):
    """C is the latent's width, R that of what is rotated, P the rest of a head's query, D = P + R, W a value's width.

    `absorbs`: which form `forward` takes. In the absorbed one `attend` is given keys [N, 1, C + R] and the same as
    values.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        mla, dim = config.attention, config.dim
        assert isinstance(mla, MLA)
        self.layer, self.interleaved, self.absorbs = layer, config.rope_interleaved, False
        self.H, self.C, self.R = mla.n_heads, mla.kv_lora_rank, mla.qk_rope_head_dim
        self.P, self.W, self.scale = mla.qk_nope_head_dim, mla.v_head_dim, softmax_scale(config)
        if mla.q_lora_rank is None:
            self.q_a = None
            self.q = nn.Linear(dim, self.H * mla.qk_head_dim, bias=False)
        else:
            self.q_a = nn.Linear(dim, mla.q_lora_rank, bias=mla.bias)
            self.q_a_norm = RMSNorm(mla.q_lora_rank, mla.latent_norm_eps)
            self.q_b = nn.Linear(mla.q_lora_rank, self.H * mla.qk_head_dim, bias=False)
        self.kv_a = nn.Linear(dim, self.C + self.R, bias=mla.bias)
        self.kv_a_norm = RMSNorm(self.C, mla.latent_norm_eps)
        self.kv_b = nn.Linear(self.C, self.H * (self.P + self.W), bias=False)
        self.o = nn.Linear(self.H * self.W, dim, bias=mla.bias)

    def forward(self, x_NM: Tensor, rope: Tables, attend: Attend) -> Tensor:
        q_NHP, q_NHR = self._queries(x_NM).split((self.P, self.R), dim=-1)
        c_NC, r_NR = self.kv_a(x_NM).split((self.C, self.R), dim=-1)
        c_NC, r_N1R = self.kv_a_norm(c_NC), rotate(r_NR[:, None], rope, self.interleaved)
        q_NHR = rotate(q_NHR, rope, self.interleaved)
        form = self._absorbed if self.absorbs else self._plain
        return self.o(form(q_NHP, q_NHR, c_NC, r_N1R, attend).flatten(1))

    def _queries(self, x_NM: Tensor) -> Tensor:
        q_NX = self.q(x_NM) if self.q_a is None else self.q_b(self.q_a_norm(self.q_a(x_NM)))
        return q_NX.view(len(x_NM), self.H, self.P + self.R)

    def _plain(self, q_NHP: Tensor, q_NHR: Tensor, c_NC: Tensor, r_N1R: Tensor, attend: Attend) -> Tensor:
        k_NHP, v_NHW = self.kv_b(c_NC).view(len(c_NC), self.H, self.P + self.W).split((self.P, self.W), dim=-1)
        q_NHD = torch.cat((q_NHP, q_NHR), -1) * (self.scale * (self.P + self.R) ** 0.5)
        return attend(self.layer, q_NHD, torch.cat((k_NHP, r_N1R.expand(-1, self.H, -1)), -1), v_NHW)

    def _absorbed(self, q_NHP: Tensor, q_NHR: Tensor, c_NC: Tensor, r_N1R: Tensor, attend: Attend) -> Tensor:
        k_HPC, v_HWC = self.kv_b.weight.view(self.H, self.P + self.W, self.C).split((self.P, self.W), dim=1)
        q_NHC = torch.bmm(q_NHP.transpose(0, 1), k_HPC).transpose(0, 1)
        q_NHX = torch.cat((q_NHC, q_NHR), -1) * (self.scale * (self.C + self.R) ** 0.5)
        latent_N1X = torch.cat((c_NC[:, None], r_N1R), -1)
        mix_NHC = attend(self.layer, q_NHX, latent_N1X, latent_N1X)[..., : self.C]
        return torch.bmm(mix_NHC.transpose(0, 1), v_HWC.mT).transpose(0, 1)
