// Weights as files hold them, brought into panels: GGUF's blocks of 32 or 256 columns, and plain numbers.

#pragma once

#include <cstdint>
#include <string>

#include "panels.h"

namespace smallpress {

struct BlockFormat {
    const char* name;
    int64_t columns, bytes;  // of a block
    Coding coding;           // of the panels it becomes

    // fp32 of one row of n columns; null where the codes are kept.
    void (*decode)(const uint8_t* row, int64_t n, float* out);

    // At most 16 rows, `row_bytes` apart, into a panel, code for code; null where they are decoded first. False where a
    // scale is not finite.
    bool (*regroup)(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, const Panels& to, int64_t panel);
};

// The format of that name, as GGUF has it; null where there is no reader for it here.
const BlockFormat* block_format(const std::string& name);

// Row `row` of a weight, as numbers.
void decode_row(const Panels& panels, int64_t row, float* out);

}  // namespace smallpress
