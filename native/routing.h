// Which experts a token goes to: the same definition as src/smallpress/model/moe.py, in fp64 from the logits on.

#pragma once

#include <cstdint>
#include <vector>

#include "config.h"

namespace smallpress {

// A place among a token's experts: which one, as what share.
struct Choice {
    int64_t expert;
    float weight;
};

// The n_active choices of a token by its logits [n_routed], the best first. `bias` [n_routed] counts in the choice and
// not in the weights; null: none. Of equals the first.
void route(const Experts& experts, const float* logits, const float* bias, Choice* choices);

}  // namespace smallpress
