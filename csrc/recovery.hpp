// Opening a log directory: reads the manifest, opens sealed segments, scans the tail, and brings
// the log into order after an unclean stop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "env.hpp"
#include "manifest.hpp"
#include "preallocated_files.hpp"
#include "segment.hpp"
#include "tail.hpp"

namespace copycat {

struct LogOptions {
    std::uint64_t max_segment_size = std::uint64_t{32} << 20;
    std::uint64_t max_entries = std::uint64_t{1} << 20;
    std::uint64_t min_free_space = 0;
    bool read_only = false;
    bool mapped = false;    // sealed segments are read through a map, else with pread
    bool compress = false;  // rewritten segments are packed where that saves enough
};

struct RecoveryReport {
    bool clean = true;                        // a close mark proved a clean stop (C7)
    std::uint64_t dropped_bytes = 0;          // of a torn tail (F1), copied into lost+found
    std::uint64_t dropped_from_index = 0;     // 0: nothing was dropped
    std::uint64_t rebuilt_indexes = 0;        // F14
    std::uint64_t copied_entries = 0;         // into a fresh segment (C7)
    std::vector<std::string> obsolete_files;  // F4
    std::uint64_t segments = 0;
    double seconds = 0;
};

struct RecoveryResult {
    Manifest manifest;
    std::vector<std::shared_ptr<Segment>> segments;
    std::unique_ptr<Tail> tail;
    bool has_tail_index = false;    // the tail's index file is on the disk and correct
    std::vector<std::string> lost;  // files of torn bytes, kept until the next seal (F1)
    RecoveryReport report;
};

// Opens the log in `directory`; every entry that it returns is durable. CorruptError (F2, F3) and
// FormatError: nothing on the disk was changed. NotFoundError: read_only, and there is no log.
// With read_only another process may be writing, so apparent damage is looked at again, and
// reported if it looks the same twice.
RecoveryResult recover(const std::shared_ptr<Env>& env, const std::string& directory,
                       const LogOptions& options, PreallocatedFiles& spares);

}  // namespace copycat
