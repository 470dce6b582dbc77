// Compresses and decompresses LZ4 blocks, by the published description of the block format: a
// token, literals, the distance and length of a match, and so on; the last five bytes are
// literals.
#pragma once

#include <cstddef>

#include "types.hpp"

namespace copycat {

// The largest block: positions in a block have 16 bits here, as distances have in the format.
inline constexpr std::size_t lz4_plain_max = std::size_t{1} << 16;

// Compresses `plain`, of at most lz4_plain_max bytes, into one block at the beginning of `into`.
// Returns the size of the block, or 0 if the block does not fit.
std::size_t lz4_compress(View plain, MutableView into) noexcept;

// Decompresses `block`. True if it is one valid block of exactly into.size() bytes. Whatever the
// bytes are, nothing outside of `block` and `into` is read or written (F28).
bool lz4_decompress(View block, MutableView into) noexcept;

}  // namespace copycat
