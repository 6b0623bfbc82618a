#include "rope.h"

#include <algorithm>
#include <cmath>

namespace smallpress {

void rope_row(const Rope& rope, int64_t position, float* cos, float* sin) {
    const auto n = static_cast<double>(rope.turns.size());
    // base^(-2i / d), and with it the turn of pair i, by a base s^(d / (d - 2)) as large: s^(-2i / (d - 2)).
    double stretch = 1.0;
    if (rope.ntk_length > 0.0) {
        const double over = std::max(position + 1.0, rope.ntk_length) / rope.ntk_length;
        stretch = rope.ntk_factor * over - rope.ntk_factor + 1.0;
    }
    for (size_t i = 0; i < rope.turns.size(); i++) {
        const double slower = stretch == 1.0 ? 1.0 : std::pow(stretch, -static_cast<double>(i) / (n - 1.0));
        const double angle = position * rope.turns[i] * slower;
        cos[i] = static_cast<float>(rope.gain * std::cos(angle));
        sin[i] = static_cast<float>(rope.gain * std::sin(angle));
    }
}

void rotate(float* head, const float* cos, const float* sin, int64_t D, bool interleaved, float* room) {
    const int64_t half = D / 2;
    if (interleaved) {
        for (int64_t i = 0; i < half; i++) {
            room[i] = head[2 * i];
            room[i + half] = head[2 * i + 1];
        }
        std::copy(room, room + D, head);
    }
    for (int64_t i = 0; i < half; i++) {
        const float left = head[i], right = head[i + half];
        head[i] = left * cos[i] - right * sin[i];
        head[i + half] = right * cos[i] + left * sin[i];
    }
}

}  // namespace smallpress
