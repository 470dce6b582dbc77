// Torn bytes that a recovery dropped, kept for whoever wants to look (F1).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "env.hpp"
#include "manifest.hpp"

namespace copycat {

// The bytes of `file`, of the segment `row`, from `offset` on. A full disk, or the lost+found of a
// mount point, which is the file system's own, must not keep the log from opening: they are lost
// then. ResourceError: nothing was changed, and a second try keeps them.
void keep_torn_bytes(Env& env, const std::string& directory, const Row& row, File& file,
                     std::uint64_t offset, std::uint64_t size);

// The paths of those that are kept, oldest first.
std::vector<std::string> torn_files(Env& env, const std::string& directory);

// As torn_files, without those above a few, which are removed: a process that dies again and again
// before its log seals a segment leaves no more than these.
std::vector<std::string> newest_torn_files(Env& env, const std::string& directory);

}  // namespace copycat
