// AdamW on blocks of parameters whose moments are in fp32, bf16 or 8 bits; a part of training.inl.

namespace {

constexpr float SMALLEST_SCALE = 1e-36f;  // 1 / it is a number still; a block of smaller values counts as zero

// The code nearest to each y in [-1, 1], and part of the next; halfway between two values, within rounding, either.
// Without a sign what is above 0 stays so; see lowbit/dynamic_map.py.
inline F16 nearest_codes(const DynamicMap& map, F16 y) {
    // A level begins above a power of ten. log10, taken from the bits as if each power of two were a straight line and
    // raised a little, finds the level or the one above it; its limit tells which.
    constexpr float TENS = 0.30102999566f, TOP = DynamicMap::N_LEVELS - 1, RAISED = 0.03f;
    const F16 size = abs(y), one = set1(1.0f);
    const F16 guess = max(fma(bits_as_number(size), set1(TENS * 0x1p-23f), set1(TOP + RAISED - 127.0f * TENS)), one);
    const F16 level = add(sub(guess, one), where_above(size, choose(map.limits, guess), one));
    const F16 line = fma(choose(map.slopes, level), size, choose(map.starts, level));
    const F16 rank = min(line, choose(map.lasts, level));
    return map.has_sign ? add(set1(map.zero + 0.5f), with_sign(rank, y)) : rank;
}

inline F16 load_moment(const DynamicMap& map, Moments format, MomentBlock from, int64_t i) {
    if (format == Moments::FP32) return load(static_cast<const float*>(from.numbers) + i);
    if (format == Moments::BF16) return load_bf16(static_cast<const uint16_t*>(from.numbers) + i);
    return mul(lookup(map.values, static_cast<const uint8_t*>(from.numbers) + i), set1(*from.scale));
}

void store_moment(const DynamicMap& map, Moments format, const float* moment, F16 peaks, float zero, MomentBlock to) {
    if (format == Moments::FP32) {
        std::memcpy(to.numbers, moment, QUANT_BLOCK * sizeof(float));
        return;
    }
    if (format == Moments::BF16) {
        for (int64_t i = 0; i < QUANT_BLOCK; i += LANES)
            store_bf16(static_cast<uint16_t*>(to.numbers) + i, load(moment + i));
        return;
    }
    const float peak = largest_of(peaks);
    if (!(zero == 0.0f && peak > SMALLEST_SCALE)) {
        *to.scale = zero == 0.0f ? 0.0f : NAN;
        std::memset(to.numbers, map.zero, QUANT_BLOCK);
        return;
    }
    *to.scale = peak;
    const F16 inverse = set1(1.0f / peak);
    for (int64_t i = 0; i < QUANT_BLOCK; i += LANES)
        store_codes(static_cast<uint8_t*>(to.numbers) + i, nearest_codes(map, mul(load(moment + i), inverse)));
}

template <Moments FORMAT>
inline void whole_block(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, MomentBlock first,
                        MomentBlock second, const float* gradient, float* parameters) {
    alignas(64) float firsts[QUANT_BLOCK], seconds[QUANT_BLOCK];
    const F16 slow = set1(step.first_share), kept = set1(step.second_kept), fresh = set1(step.second_share);
    F16 first_peak = set1(0.0f), second_peak = set1(0.0f), first_zero = set1(0.0f), second_zero = set1(0.0f);
    for (int64_t i = 0; i < QUANT_BLOCK; i += LANES) {
        fetch(gradient + i);
        fetch(parameters + i);
        const F16 g = load(gradient + i), p = load(parameters + i);
        F16 m = load_moment(first_map, FORMAT, first, i), v = load_moment(second_map, FORMAT, second, i);
        m = fma(sub(g, m), slow, m);
        v = fma(mul(g, g), fresh, mul(v, kept));
        const F16 size = fma(root(v), set1(step.correction), set1(step.eps));
        store(parameters + i, fma(div(m, size), set1(-step.stride), mul(p, set1(step.shrink))));
        store(firsts + i, m);
        store(seconds + i, v);
        if (FORMAT == Moments::DYNAMIC) {
            first_peak = max(first_peak, abs(m));
            second_peak = max(second_peak, v);
            first_zero = fma(m, set1(0.0f), first_zero);  // NaN where one of them is not finite; see pack
            second_zero = fma(v, set1(0.0f), second_zero);
        }
    }
    store_moment(first_map, FORMAT, firsts, first_peak, sum(first_zero), first);
    store_moment(second_map, FORMAT, seconds, second_peak, sum(second_zero), second);
}

// The last block of a tensor, in a whole one filled up with zeros.
template <Moments FORMAT, typename T>
void part_block(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, MomentBlock first,
                MomentBlock second, const float* gradient, int64_t n, float* parameters) {
    T firsts[QUANT_BLOCK], seconds[QUANT_BLOCK];
    float g[QUANT_BLOCK] = {}, p[QUANT_BLOCK] = {};
    const bool coded = FORMAT == Moments::DYNAMIC;
    for (int64_t i = n; i < QUANT_BLOCK; i++) {
        firsts[i] = coded ? static_cast<T>(first_map.zero) : T{0};
        seconds[i] = coded ? static_cast<T>(second_map.zero) : T{0};
    }
    std::memcpy(firsts, first.numbers, n * sizeof(T));
    std::memcpy(seconds, second.numbers, n * sizeof(T));
    std::memcpy(g, gradient, n * sizeof(float));
    std::memcpy(p, parameters, n * sizeof(float));
    whole_block<FORMAT>(step, first_map, second_map, {firsts, first.scale}, {seconds, second.scale}, g, p);
    std::memcpy(first.numbers, firsts, n * sizeof(T));
    std::memcpy(second.numbers, seconds, n * sizeof(T));
    std::memcpy(parameters, p, n * sizeof(float));
}

template <Moments FORMAT, typename T>
void one_block(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, MomentBlock first,
               MomentBlock second, const float* gradient, int64_t n, float* parameters) {
    if (n < QUANT_BLOCK)
        return part_block<FORMAT, T>(step, first_map, second_map, first, second, gradient, n, parameters);
    whole_block<FORMAT>(step, first_map, second_map, first, second, gradient, parameters);
}

void adamw(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, Moments format,
           MomentBlock first, MomentBlock second, const float* gradient, int64_t n, float* parameters) {
    switch (format) {
        case Moments::FP32:
            return one_block<Moments::FP32, float>(step, first_map, second_map, first, second, gradient, n, parameters);
        case Moments::BF16:
            return one_block<Moments::BF16, uint16_t>(step, first_map, second_map, first, second, gradient, n,
                                                      parameters);
        case Moments::DYNAMIC:
            return one_block<Moments::DYNAMIC, uint8_t>(step, first_map, second_map, first, second, gradient, n,
                                                        parameters);
    }
}

}  // namespace
