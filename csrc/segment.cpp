#include "segment.hpp"

#include <algorithm>

#include "packed.hpp"
#include "scan.hpp"

namespace copycat {

void cut_runs_after(std::vector<TermRun>& runs, std::uint64_t last) {
    while (!runs.empty() && runs.back().first > last) runs.pop_back();
}

std::uint64_t term_in(const std::vector<TermRun>& runs, std::uint64_t index) {
    const auto after = std::upper_bound(
        runs.begin(), runs.end(), index,
        [](std::uint64_t value, const TermRun& run) { return value < run.first; });
    require(after != runs.begin(), "every entry lies in a run of terms");
    return std::prev(after)->term;
}

void write_index(Env& env, const std::string& path, const Row& row, const SlotIndex& index) {
    if (env.exists(path)) env.unlink(path);
    const auto write = [&] { env.create(path)->pwrite(0, View(index.encode(row))); };
    try {
        or_undo(write, [&] { env.discard(path); });
    } catch (const DiskFullError&) {
    } catch (const ResourceError&) {
    } catch (const std::bad_alloc&) {
    }
}

Segment::Segment(std::shared_ptr<Env> env, std::string directory, const Row& row,
                 std::shared_ptr<SlotIndex> index, std::shared_ptr<File> file)
    : env_(std::move(env)),
      directory_(std::move(directory)),
      row_(row),
      path_(segment_path(directory_, row.id, row.version)),
      index_(std::move(index)),
      file_(std::move(file)) {
    require(index_ != nullptr && index_->end() > row_.last_index,
            "a segment's index covers its entries");
    runs_ = index_->runs();
    cut_runs_after(runs_, row_.last_index);
}

std::uint64_t Segment::term_at(std::uint64_t index) const { return term_in(runs_, index); }

std::uint64_t Segment::end_of(std::uint64_t index) {
    Block keep;
    const Frame frame = this->frame(index, keep);
    // After the check of the frame, which rebuilds the index if it is wrong.
    return checked_index().find(index).offset + frame.total();
}

void Segment::cut(std::uint64_t after, std::uint64_t end_offset) {
    require(row_.first_index <= after && after <= row_.last_index, "a cut lies in its segment");
    if (after == row_.last_index) return;
    row_.end_offset = end_offset;
    row_.last_index = after;
    cut_runs_after(runs_, after);
    liveness_.cut(view().count());
    entries_.reset();
    data_ = Block{};
}

void Segment::map_index() noexcept {
    file_.reset();
    if (index_->is_mapped()) return;
    try {
        auto mapped = SlotIndex::open(*env_, index_file(), row_, true);
        if (mapped != nullptr) index_ = std::move(mapped);
    } catch (const std::bad_alloc&) {
    }
}

SlotIndex& Segment::checked_index() {
    if (!index_->verify(*env_)) rebuild();
    return *index_;
}

void Segment::rebuild() {
    if (file_cache_ != nullptr) file_cache_->forget(row_);  // so that the file is read again
    const auto file = open_segment(*env_, row_, path_);
    Scan scan = scan_sealed(*file, row_, path_);
    index_ =
        std::make_shared<SlotIndex>(std::move(scan.slots), std::move(scan.runs), scan.valid_from);
    runs_ = index_->runs();
    ++rebuilt_;
}

const Block& Segment::data() {
    if (data_.owner == nullptr) {
        const Block whole = env_->open(path_, Access::read)->map();
        if (whole.bytes.size() < row_.end_offset)
            throw CorruptError(
                "segment " + path_ + " is too short: " + std::to_string(whole.bytes.size()) +
                    " bytes of " + std::to_string(row_.end_offset),
                path_, static_cast<std::int64_t>(whole.bytes.size()), row_.first_index);
        data_ = whole.part(0, static_cast<std::size_t>(row_.end_offset));
    }
    return data_;
}

Segment::Source Segment::source(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) {
    SlotIndex& index = checked_index();
    if (file_cache_ == nullptr) {
        const std::uint64_t offset = index.find(first).offset;
        const Block& all = data();
        if (offset >= all.bytes.size()) return {{Block{}, offset, row_.uuid, path_}, end};
        const auto from = static_cast<std::size_t>(offset);
        return {{all.part(from, all.bytes.size() - from), offset, row_.uuid, path_}, end};
    }
    const SlotView::Extent extent = index.extent(first, end, max_bytes);
    if (extent.end <= first)
        throw CorruptError(
            "the index of " + path_ + " has nothing at entry " + std::to_string(first), path_, -1,
            first);
    const std::uint64_t to = std::min(extent.to, row_.end_offset);
    const auto size = static_cast<std::size_t>(to - std::min(to, extent.from));
    Block bytes = file_cache_->read(row_, path_, extent.from, size);
    return {{std::move(bytes), extent.from, row_.uuid, path_}, extent.end};
}

Frames Segment::read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) {
    const std::uint64_t limit = std::min(end, row_.last_index + 1);
    try {
        const Source from = source(first, limit, max_bytes);
        return gather(from.bytes, first, from.end, max_bytes);
    } catch (const CorruptError&) {
        rebuild();  // perhaps only the index is wrong; if the data is bad, the scan throws (F14)
    }
    const Source from = source(first, limit, max_bytes);
    return gather(from.bytes, first, from.end, max_bytes);
}

Frame Segment::frame(std::uint64_t index, Block& keep) {
    try {
        const Source from = source(index, index + 1, 0);
        keep = from.bytes.block;
        return checked_frame(from.bytes, index);
    } catch (const CorruptError&) {
        rebuild();
    }
    const Source from = source(index, index + 1, 0);
    keep = from.bytes.block;
    return checked_frame(from.bytes, index);
}

void Segment::release(std::uint64_t index, Release policy) {
    std::size_t position = 0;
    if (!checked_index().find(index, position).is_gap()) liveness_.release(position, policy);
}

void Segment::inherit(Segment& old, const Bits& dropped_bits) {
    const SlotView before = old.view();
    old.liveness().for_each_but(dropped_bits, [&](std::size_t position, Release policy) {
        release(before.index_of(position), policy);
    });
}

std::uint64_t Segment::entries() {
    if (!entries_) entries_ = entries_in(view());
    return *entries_;
}

std::uint64_t entries_in(const SlotView& view) {
    return static_cast<std::uint64_t>(
        std::count_if(view.slots.begin(), view.slots.end(),
                      [](const IndexSlot& slot) { return !slot.is_gap(); }));
}

Block Segment::slots() {
    SlotIndex& index = checked_index();
    const std::size_t size = index.view().upto(row_.last_index).slots.size_bytes();
    Block block = index.block();
    if (block.owner == nullptr) block.owner = index_;
    return block.part(0, size);
}

}  // namespace copycat
