// Rotary position embedding: cos and sin of a step's positions, and the turn itself.

#pragma once

#include <cstdint>

#include "config.h"

namespace smallpress {

// cos and sin [turns.size()] at a position, times the gain.
void rope_row(const Rope& rope, int64_t position, float* cos, float* sin);

// Turns each pair of a head of D dimensions by its angle: (i, i + D / 2), or (2i, 2i + 1) where interleaved, which then
// come out as halves; scores do not change by the order, as queries and keys come out in the same. `room` holds D.
void rotate(float* head, const float* cos, const float* sin, int64_t D, bool interleaved, float* room);

}  // namespace smallpress
