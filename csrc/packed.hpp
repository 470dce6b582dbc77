// Sealed segments that a compaction stored in LZ4 blocks: the layer below all who read them.
// Above it a packed segment is the plain file that it stands for; nothing maps one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "env.hpp"
#include "format.hpp"
#include "manifest.hpp"

namespace copycat {

// A random read unpacks so much, and every block is worth less when it is smaller: decision 0020.
inline constexpr std::size_t packed_block_bytes = std::size_t{16} << 10;

// The file of a segment, for reading. Of a packed one: its plain bytes, their number as size(),
// and a CorruptError with the file's byte from any read that meets a damaged block.
// NotFoundError, IoError; CorruptError and FormatError when it is not the packed file of `row`.
std::shared_ptr<File> open_segment(Env& env, const Row& row, const std::string& path);

// Writes the packed file of a segment.
class Packer {
public:
    // `row` names it; `file` is new and empty.
    Packer(std::shared_ptr<File> file, const Row& row);

    // Bytes of the plain file. What lies in its first block comes in any order, the rest in the
    // order of the file.
    void write(std::uint64_t offset, View bytes);
    // After the last byte; not synced.
    void finish();
    // Whether the file is at most 7/8 of what it stands for, as far as that is known.
    bool saves() const { return stored_ <= plain_ - plain_ / 8; }
    std::uint64_t plain_bytes() const { return plain_; }

private:
    void pack(std::size_t number, View plain);
    void write_buffer();

    std::shared_ptr<File> file_;
    PackedHeader header_{};
    Bytes head_;   // the first block: written last, since the segment's header is
    Bytes block_;  // the one that is being filled
    Bytes buffer_;
    std::vector<PackedBlock> table_;
    std::uint64_t end_ = 0;                        // of the plain file so far
    std::uint64_t offset_ = sizeof(PackedHeader);  // of the buffer in the file
    std::uint64_t plain_ = 0;                      // what was packed, and
    std::uint64_t stored_ = 0;                     // what became of it
};

}  // namespace copycat
