// A sealed segment: never written again. Read with pread, or through a read-only map of its file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "env.hpp"
#include "file_cache.hpp"
#include "gather.hpp"
#include "liveness.hpp"
#include "manifest.hpp"
#include "slot_index.hpp"

namespace copycat {

class Segment {
public:
    // If `index` is null, the index is opened or rebuilt when it is first needed. `file` is kept
    // open while its data may still need a sync.
    Segment(std::shared_ptr<Env> env, std::string directory, const Row& row,
            std::shared_ptr<SlotIndex> index, std::shared_ptr<File> file);

    const Row& row() const { return row_; }
    std::uint64_t first_index() const { return row_.first_index; }
    std::uint64_t last_index() const { return row_.last_index; }
    const std::string& path() const { return path_; }
    std::string index_file() const { return index_path(directory_, row_.id, row_.version); }
    const std::shared_ptr<File>& file() const { return file_; }
    const std::shared_ptr<SlotIndex>& index() const { return index_; }
    const std::vector<TermRun>& runs() const { return runs_; }
    std::uint64_t term_at(std::uint64_t index) const;
    // How often a read met a wrong index, which was then rebuilt (F14).
    std::uint32_t rebuilt() const { return rebuilt_; }

    // The file offset at which the record that holds `index` ends. Reads and verifies that
    // record; CorruptError.
    std::uint64_t end_of(std::uint64_t index);
    // Ends the segment after entry `after`; the file stays as it is. `end_offset` is
    // end_of(after), which the caller asked for before, so that this call cannot fail.
    void cut(std::uint64_t after, std::uint64_t end_offset);
    // Called when the data is synced and the index file is written: from now on the index is read
    // through a map of that file. If memory is short, the index stays in memory.
    void map_index() noexcept;

    // From now on the data is read with pread, or through a map if `mapped` and not packed.
    void set_file_cache(std::shared_ptr<FileCache> file_cache, bool mapped) {
        file_cache_ = mapped && !row_.packed ? nullptr : std::move(file_cache);
    }
    // Bytes of the segment's file, without space that is allocated ahead.
    std::uint64_t stored_bytes() const { return row_.packed ? packed_bytes_ : row_.end_offset; }
    void set_packed_bytes(std::uint64_t bytes) { packed_bytes_ = bytes; }

    Frames read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes);
    // The frame of entry `index`, or of the gap that contains `index`. `keep` owns the bytes that
    // the payload points into.
    Frame frame(std::uint64_t index, Block& keep);
    // The slots as bytes, one for each record.
    Block slots();

    // Its records up to its last index.
    SlotView view() { return checked_index().view().upto(row_.last_index); }
    const Liveness& liveness() const { return liveness_; }
    void set_liveness(Liveness&& liveness) { liveness_ = std::move(liveness); }
    // Marks the record that holds `index` as released; does nothing when that record is a gap.
    void release(std::uint64_t index, Release policy);
    // Takes over the releases of `old`, except for the records in `dropped_bits`.
    void inherit(Segment& old, const Bits& dropped_bits);
    // The number of entries; gaps do not count.
    std::uint64_t entries();

private:
    SlotIndex& checked_index();
    void rebuild();
    const Block& data();
    struct Source {
        SegmentBytes bytes;
        std::uint64_t end;  // one past the last index in them
    };
    Source source(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes);

    std::shared_ptr<Env> env_;
    std::string directory_;
    Row row_;
    std::string path_;
    std::shared_ptr<SlotIndex> index_;
    std::shared_ptr<File> file_;
    std::vector<TermRun> runs_;
    Block data_;
    std::uint64_t packed_bytes_ = 0;
    std::shared_ptr<FileCache> file_cache_;
    std::uint32_t rebuilt_ = 0;
    Liveness liveness_;
    std::optional<std::uint64_t> entries_;
};

// The number of records that are no gaps.
std::uint64_t entries_in(const SlotView& view);

// Writes the index file of a segment. It is not synced, and a full disk or a lack of descriptors
// or memory is ignored: an index file that is missing or torn is rebuilt when it is needed.
void write_index(Env& env, const std::string& path, const Row& row, const SlotIndex& index);

// Deletes the runs after entry `last`.
void cut_runs_after(std::vector<TermRun>& runs, std::uint64_t last);
std::uint64_t term_in(const std::vector<TermRun>& runs, std::uint64_t index);

}  // namespace copycat
