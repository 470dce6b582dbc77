// The tail: the one segment that is written to. Its slots are in memory; every byte of its file
// is written once, by pwrite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "env.hpp"
#include "frame.hpp"
#include "liveness.hpp"
#include "manifest.hpp"
#include "preallocated_files.hpp"
#include "read_ahead.hpp"
#include "segment.hpp"

namespace copycat {

// Bytes that appends leave free at the end of a segment, for one idle mark and the close mark.
inline constexpr std::uint64_t closing_marks_size = 2 * mark_size;

// The size that a segment file must have to take `bytes` of frames in one append.
constexpr std::uint64_t size_for(std::uint64_t bytes) {
    return segment_data_offset + mark_size + bytes + closing_marks_size;
}

class Tail {
public:
    // The content of an existing tail: read from its index after a clean stop, else from a scan.
    struct Content {
        Slots slots;
        std::vector<TermRun> runs;
        std::uint64_t valid_from = 0;
        std::uint64_t end_offset = segment_data_offset;
        std::uint64_t marked_upto = 0;
    };

    Tail(std::shared_ptr<Env> env, std::string directory, const Row& row, std::uint64_t max_size,
         std::uint64_t max_entries, std::shared_ptr<File> file, Content content);

    // Makes `spare` the new segment `row`: renames its file and writes the header. The segment
    // becomes part of the log once a durable manifest names it. After a DiskFullError or a
    // ResourceError neither file exists any more.
    static std::unique_ptr<Tail> begin(const std::shared_ptr<Env>& env,
                                       const std::string& directory, const Spare& spare, Row row,
                                       std::uint64_t max_entries);

    const Row& row() const { return row_; }
    std::uint64_t first_index() const { return row_.first_index; }
    std::uint64_t last_index() const { return slots_.end() - 1; }
    bool is_empty() const { return slots_.count() == 0; }
    std::uint64_t last_term() const { return runs_.empty() ? row_.prev_term : runs_.back().term; }
    std::uint64_t end_offset() const { return end_; }
    std::uint64_t max_size() const { return max_size_; }
    std::uint64_t appends() const { return appends_; }
    std::uint64_t marked_upto() const { return marked_upto_; }
    const std::string& path() const { return path_; }
    const std::shared_ptr<File>& file() const { return file_; }
    const std::vector<TermRun>& runs() const { return runs_; }
    const Slots& slots() const { return slots_; }
    // The file offset at which the record that holds `index` begins.
    std::uint64_t offset_of(std::uint64_t index) const;
    std::uint64_t valid_from() const { return row_.valid_from; }
    std::uint64_t term_at(std::uint64_t index) const { return term_in(runs_, index); }

    // Whether the tail has room for `count` records in `bytes` bytes, whose indexes end at `end`.
    bool fits(std::uint64_t bytes, std::uint64_t count, std::uint64_t end) const;
    bool fits(const Frames& frames) const {
        return fits(frames.nbytes(), frames.count_max(), frames.span.end);
    }
    bool has_room_for_marks(std::uint64_t count) const;

    // Writes a mark and the frames in one write. After a DiskFullError the batch is not part of
    // the log, and this tail takes no further write, since no byte is ever written twice.
    void append(const Frames& frames, std::uint64_t durable_upto);
    void mark(std::uint8_t flags, std::uint64_t durable_upto);

    // Makes a sealed segment of this tail and moves its slots there. If memory is short, the tail
    // stays usable as it was.
    std::shared_ptr<Segment> seal();
    std::shared_ptr<SlotIndex> index_copy() const;

    Frames read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) const;
    Frame frame(std::uint64_t index, Block& keep) const;
    // The file offset at which the record that holds `index` ends. Reads and verifies that
    // record; CorruptError.
    std::uint64_t end_of(std::uint64_t index) const;

    const Liveness& liveness() const { return liveness_; }
    // Marks the record that holds `index` as released; does nothing when that record is a gap.
    void release(std::uint64_t index, Release policy);
    // The number of entries; gaps do not count.
    std::uint64_t entries() const;

private:
    void allocate_for(const Frames& frames);
    void write(View bytes);

    std::shared_ptr<Env> env_;
    std::string directory_;
    Row row_;
    std::string path_;
    std::uint64_t max_size_;
    std::uint64_t max_entries_;
    std::shared_ptr<File> file_;
    Slots slots_;
    std::vector<TermRun> runs_;
    std::uint64_t end_;
    std::uint64_t marked_upto_;
    std::uint64_t appends_ = 0;
    bool is_spoiled_ = false;
    Bytes buffer_;
    mutable ReadAhead read_ahead_;
    Liveness liveness_;
    std::size_t released_hint_ = 0;
};

}  // namespace copycat
