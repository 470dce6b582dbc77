// LZ4 blocks, written after the published description of the block format: a token, literals,
// the distance and length of a match, and so on; the last five bytes are literals.
#pragma once

#include <cstddef>

#include "types.hpp"

namespace copycat {

// Positions in a block have 16 bits here, as distances have in the format.
inline constexpr std::size_t lz4_plain_max = std::size_t{1} << 16;

// `plain` as one block at the beginning of `into`: its size, or 0 when it does not fit there.
// plain.size() <= lz4_plain_max.
std::size_t lz4_compress(View plain, MutableView into) noexcept;

// True when `block` is one block of exactly into.size() bytes, which are in `into` then. Whatever
// the bytes are, nothing outside of the two is touched (F28).
bool lz4_decompress(View block, MutableView into) noexcept;

}  // namespace copycat
