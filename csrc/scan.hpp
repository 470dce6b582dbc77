// Reads a segment file record by record, and tells which records are good (C5 to C7, F1, F2).
#pragma once

#include <cstdint>
#include <vector>

#include "env.hpp"
#include "frame.hpp"
#include "manifest.hpp"
#include "slots.hpp"

namespace copycat {

class RewriteThrottle;

struct Scan {
    Slots slots;
    std::vector<TermRun> runs;
    std::uint64_t valid_from = 0;                    // the largest of the gaps
    std::uint64_t end_offset = segment_data_offset;  // right after the last good record
    std::uint64_t durable_upto = 0;                  // the highest of the marks
    bool is_closed = false;                          // the last record is a close mark
    std::uint64_t torn_bytes = 0;                    // from end_offset to the last byte not zero
};

// Checks that the file's header is that of `row`; CorruptError, FormatError. Returns max_size.
std::uint64_t check_header(File& file, const Row& row, const std::string& path);

// Scans a sealed segment up to row.end_offset. CorruptError for any bad byte (F2). throttle: slows
// the scan down while the log is in use.
Scan scan_sealed(File& file, const Row& row, const std::string& path,
                 RewriteThrottle* throttle = nullptr);

// Scans a tail. Bad bytes are a torn tail, unless a later mark of this file says that they were
// durable: then they are a CorruptError (C6).
Scan scan_tail(File& file, const Row& row, const std::string& path);

// Reads the marks from `offset` on, up to the first 32 bytes of zeros. True if the last of them is
// a close mark which says that everything up to `last_index` is durable; `end` is right after it.
bool find_close_mark(File& file, const Row& row, std::uint64_t offset, std::uint64_t last_index,
                     std::uint64_t& end);

}  // namespace copycat
