// CRC32C (Castagnoli), with the processor's instruction where there is one.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace copycat {

// seed: the value of the bytes before these: crc32c(b, crc32c(a)) == crc32c(a + b).
std::uint32_t crc32c(View bytes, std::uint32_t seed = 0);
bool crc32c_is_hardware();
// For tests: with true, all later calls use the table. Returns the earlier setting.
bool crc32c_force_table(bool on);

}  // namespace copycat
