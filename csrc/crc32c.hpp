// CRC32C (Castagnoli), with the processor's instruction where there is one.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace copycat {

// Continues `seed`, the value of the bytes before: crc32c(b, crc32c(a)) == crc32c(a + b).
std::uint32_t crc32c(View bytes, std::uint32_t seed = 0);
bool crc32c_is_hardware();
// For tests: true makes every later call use the table. Returns whether it was forced before.
bool crc32c_force_table(bool on);

}  // namespace copycat
