"""The block formats on numbers one can work out on paper."""

import numpy as np
import pytest

from smallpress.lowbit.bfloat16 import bf16_to_fp32, fp32_to_bf16
from smallpress.lowbit.blocks import CHUNK_ELEMENTS, FORMATS, NOT_READ, dequantize

BY_NAME = {block_format.name: block_format for block_format in FORMATS.values()}


def half(*values):
    return np.array(values, dtype="<f2").tobytes()


def decode(name, data):
    return dequantize(BY_NAME[name], np.frombuffer(data, np.uint8))


def test_q8_0_is_scale_times_signed_byte():
    values = decode("Q8_0", half(0.5) + bytes([2, 0xFE]) + bytes(30))
    assert values.tolist() == [1.0, -1.0] + [0.0] * 30


def test_q4_0_puts_low_nibbles_first_and_takes_off_8():
    values = decode("Q4_0", half(2.0) + bytes([0xF0]) + bytes([0x88]) * 15)
    assert values[0] == -16.0  # 2 * (0 - 8)
    assert values[16] == 14.0  # 2 * (15 - 8)
    assert not values[1:16].any() and not values[17:].any()


def test_q4_1_adds_the_minimum():
    values = decode("Q4_1", half(0.25, -1.0) + bytes([0x42]) + bytes(15))
    assert values[0] == -0.5  # 0.25 * 2 - 1
    assert values[16] == 0.0  # 0.25 * 4 - 1
    assert set(values[1:16]) == {-1.0}


def test_q5_0_takes_its_fifth_bits_from_four_bytes():
    values = decode("Q5_0", half(1.0) + bytes([0b10, 0, 0, 0x80]) + bytes([0, 0x03] + [0] * 13 + [0xF0]))
    assert values[0] == -16.0
    assert values[1] == 3.0  # 3 + 16 - 16
    assert values[31] == 15.0  # 15 + 16 - 16


def test_q5_1_adds_the_minimum():
    assert decode("Q5_1", half(2.0, 1.0) + bytes([1, 0, 0, 0]) + bytes([1] + [0] * 15))[0] == 35.0  # 2 * 17 + 1


def test_q4_k_scales_each_sub_block_of_32_on_its_own():
    scales = bytes([3, 0, 0, 0, 1, 0, 0, 0, 0x25, 0, 0, 0])  # pair 0: (3, 1); pair 4: (5, 2)
    values = decode("Q4_K", half(0.5, 2.0) + scales + bytes([0x04] * 128))
    assert values[0] == 0.5 * 3 * 4 - 2.0 * 1
    assert values[32] == 0.0  # pair 1 is (0, 0)
    assert values[128] == 0.5 * 5 * 4 - 2.0 * 2


def test_q5_k_has_a_fifth_bit_for_each_sub_block():
    scales = bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert decode("Q5_K", half(1.0, 0.0) + scales + bytes([1] * 32) + bytes([2] * 128))[0] == 18.0


def test_q6_k_joins_four_low_and_two_high_bits():
    low, high, scales = bytes([0x21] * 128), bytes([0b11100100] * 64), bytes([1] * 16)
    values = decode("Q6_K", low + high + scales + half(1.0))
    assert values[[0, 32, 64, 96]].tolist() == [1 - 32, 17 - 32, 34 - 32, 50 - 32]


def test_q2_k_has_four_codes_a_byte_and_small_minima():
    values = decode("Q2_K", bytes([0x12] * 16) + bytes([0b11100100] * 64) + half(1.0, 4.0))
    assert values[[0, 32, 64, 96]].tolist() == [-4.0, -2.0, 0.0, 2.0]  # 1 * 2 * code - 4 * 1


def test_q3_k_takes_off_4_where_the_high_bit_is_clear():
    scales = bytes([0x11] * 8) + bytes([0b10101010] * 4)  # 1 | 2 << 4 = 33, less 32 = 1
    values = decode("Q3_K", bytes([0b1] * 32) + bytes([0b11100100] * 64) + scales + half(1.0))
    assert values[[0, 32, 64, 96]].tolist() == [0.0, 1 - 4, 2 - 4, 3 - 4]


def test_iq4_nl_looks_its_codes_up_among_levels_that_crowd_around_zero():
    values = decode("IQ4_NL", half(0.5) + bytes([0xF0]) + bytes([0x87]) * 15)
    assert values[[0, 16, 1, 17]].tolist() == [-63.5, 56.5, -5.0, 0.5]  # levels -127, 113, -10, 1


def test_iq4_xs_joins_its_sub_scales_of_four_and_two_bits():
    upper = (0b10 | 0b11 << 2).to_bytes(2, "little")  # sub-scale 0: 2 * 16 + 1 - 32; 1: 3 * 16 + 2 - 32
    values = decode("IQ4_XS", half(2.0) + upper + bytes([0x21, 0, 0, 0]) + bytes([0x98] * 128))
    assert values[[0, 16]].tolist() == [2.0, 2.0 * 13]  # sub-scale 1, levels 1 and 13
    assert values[[32, 48]].tolist() == [2.0 * 18, 2.0 * 18 * 13]
    assert values[64] == 2.0 * -32


def test_tq1_0_has_five_codes_of_three_values_a_byte():
    codes = [2, 0, 1, 2, 1]  # 2/3 + 0/9 + 1/27 + 2/81 + 1/243 = 178/243, in 256ths rounded up: 188
    values = decode("TQ1_0", bytes([188] * 52) + half(3.0))
    assert [values[32 * n] for n in range(5)] == [3.0 * (code - 1) for code in codes]
    assert [values[160 + 16 * n] for n in range(5)] == [3.0 * (code - 1) for code in codes]
    assert [values[240 + 4 * n] for n in range(4)] == [3.0 * (code - 1) for code in codes[:4]]


def test_tq2_0_has_four_codes_a_byte():
    values = decode("TQ2_0", bytes([0b10010010] * 64) + half(0.5))
    assert values[[0, 32, 64, 96]].tolist() == [0.5, -0.5, 0.0, 0.5]
    assert values[[128, 160, 192, 224]].tolist() == [0.5, -0.5, 0.0, 0.5]


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_plain_numbers_come_back(name):
    bits = {"F32": np.array([1.5, -2.0], "<f4"), "F16": np.array([1.5, -2.0], "<f2")}
    bits["BF16"] = np.array([0x3FC0, 0xC000], "<u2")
    assert decode(name, bits[name].tobytes()).tolist() == [1.5, -2.0]


def test_chunks_do_not_show():
    rng = np.random.default_rng(0)
    block_format = BY_NAME["Q4_1"]
    n_blocks = 2 * CHUNK_ELEMENTS // 32 + 7
    scales = rng.normal(size=(n_blocks, 2)).astype("<f2").view(np.uint8)
    raw = np.concatenate((scales, rng.integers(0, 256, (n_blocks, 16), dtype=np.uint8)), axis=1)
    whole = dequantize(block_format, raw.reshape(-1))
    last = dequantize(block_format, raw[-9:].reshape(-1))
    assert np.array_equal(whole[-9 * 32 :], last)


def test_a_damaged_scale_gives_no_warning():
    assert np.isnan(decode("Q8_0", half(np.inf) + bytes(32))).all()


def test_no_type_is_both_read_and_not_read():
    assert not set(FORMATS) & set(NOT_READ)


def test_bf16_rounds_ties_to_even():
    one, step = 1.0, 2.0**-7  # the distance of bf16 numbers just above 1
    values = np.array([one + step / 2, one + 1.5 * step, one + 0.51 * step], dtype=np.float32)
    assert bf16_to_fp32(fp32_to_bf16(values)).tolist() == [one, one + 2 * step, one + step]


def test_bf16_keeps_what_is_not_finite():
    values = np.array([np.inf, -np.inf, np.nan, 3.4028235e38, -0.0], dtype=np.float32)
    wide = bf16_to_fp32(fp32_to_bf16(values))
    assert wide[0] == np.inf and wide[1] == -np.inf and np.isnan(wide[2]) and wide[3] == np.inf
    assert np.signbit(wide[4])


def test_every_bf16_survives_the_round_trip():
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = bf16_to_fp32(bits)
    number = ~np.isnan(wide)
    assert np.array_equal(fp32_to_bf16(wide)[number], bits[number])
