// Files in lost+found with torn bytes that a recovery dropped, for an operator to inspect (F1).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "env.hpp"
#include "manifest.hpp"

namespace copycat {

// Copies `size` bytes of `file`, the file of the segment `row`, from `offset` on into lost+found.
// The log opens without the copy if the disk is full, or if lost+found belongs to the file system,
// as in a mount point. ResourceError: nothing was changed, and the call may be repeated.
void keep_torn_bytes(Env& env, const std::string& directory, const Row& row, File& file,
                     std::uint64_t offset, std::uint64_t size);

// The paths of these files, oldest first.
std::vector<std::string> torn_files(Env& env, const std::string& directory);

// As torn_files, but deletes all except the newest few: a process may die again and again before
// its log seals a segment.
std::vector<std::string> newest_torn_files(Env& env, const std::string& directory);

}  // namespace copycat
