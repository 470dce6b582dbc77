// Sealed segments that a compaction stored in LZ4 blocks. Readers above this file see the bytes of
// the plain segment; a packed file is never mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "env.hpp"
#include "format.hpp"
#include "manifest.hpp"

namespace copycat {

// Plain bytes per block. A random read unpacks one block; smaller blocks save less (decision
// 0020).
inline constexpr std::size_t packed_block_bytes = std::size_t{16} << 10;

// Opens the file of a segment for reading. For a packed one, reads and size() are those of the
// plain segment, and a read throws CorruptError, with the offset in the file, for a damaged block.
// NotFoundError, IoError; CorruptError and FormatError if the file is not the packed file of
// `row`.
std::shared_ptr<File> open_segment(Env& env, const Row& row, const std::string& path);

// Writes the packed file of a segment.
class Packer {
public:
    // row: the segment. file: new and empty.
    Packer(std::shared_ptr<File> file, const Row& row);

    // Adds bytes of the plain segment. Those of its first block may come in any order, all others
    // in the order of the segment.
    void write(std::uint64_t offset, View bytes);
    // Called after the last byte. Writes the rest of the file, but does not sync it.
    void finish();
    // Whether the file is at most 7/8 of the plain segment, as far as it was written.
    bool saves() const { return stored_ <= plain_ - plain_ / 8; }
    std::uint64_t plain_bytes() const { return plain_; }

private:
    void pack(std::size_t number, View plain);
    void write_buffer();

    std::shared_ptr<File> file_;
    PackedHeader header_{};
    Bytes head_;   // the first block: packed last, since the segment's header is written last
    Bytes block_;  // the one that is being filled
    Bytes buffer_;
    std::vector<PackedBlock> table_;
    std::uint64_t end_ = 0;                        // of the plain file so far
    std::uint64_t offset_ = sizeof(PackedHeader);  // of the buffer in the file
    std::uint64_t plain_ = 0;                      // bytes that were packed
    std::uint64_t stored_ = 0;                     // their size in the file
};

}  // namespace copycat
