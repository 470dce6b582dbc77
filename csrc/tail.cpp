#include "tail.hpp"

#include <algorithm>

#include "crc32c.hpp"

namespace copycat {
namespace {

// An append buffer that grew above this size is freed after the append. A replica's batches are
// at most 1 MiB, so this happens only after an unusually large append.
constexpr std::size_t buffer_kept_max = std::size_t{4} << 20;

}  // namespace

Tail::Tail(std::shared_ptr<Env> env, std::string directory, const Row& row, std::uint64_t max_size,
           std::uint64_t max_entries, std::shared_ptr<File> file, Content content)
    : env_(std::move(env)),
      directory_(std::move(directory)),
      row_(row),
      path_(segment_path(directory_, row.id, row.version)),
      max_size_(max_size),
      max_entries_(max_entries),
      file_(std::move(file)),
      slots_(std::move(content.slots)),
      runs_(std::move(content.runs)),
      end_(content.end_offset),
      marked_upto_(content.marked_upto) {
    row_.valid_from = content.valid_from;
}

std::unique_ptr<Tail> Tail::begin(const std::shared_ptr<Env>& env, const std::string& directory,
                                  const Spare& spare, Row row, std::uint64_t max_entries) {
    require(spare.size <= max_file_size, "an offset in a segment has 32 bits");
    row.uuid = spare.uuid;
    std::string path = segment_path(directory, row.id, row.version);
    return or_undo(
        [&] {
            auto tail =
                std::make_unique<Tail>(env, directory, row, spare.size, max_entries, spare.file,
                                       Content{.slots = Slots(row.first_index), .runs = {}});
            const Bytes header = encode_header(row, max_entries, spare.size);
            env->rename(spare.path, path);
            spare.file->renamed(std::string(path));
            tail->file_->pwrite(0, View(header));
            return tail;
        },
        [&] {
            env->discard(spare.path);
            env->discard(path);
        });
}

bool Tail::fits(std::uint64_t bytes, std::uint64_t count, std::uint64_t end) const {
    return !is_spoiled_ && end_ + mark_size + bytes + closing_marks_size <= max_size_ &&
           slots_.count() + count <= max_entries_ && end - row_.first_index <= max_record_start;
}

bool Tail::has_room_for_marks(std::uint64_t count) const {
    return !is_spoiled_ && end_ + count * mark_size <= max_size_;
}

void Tail::write(View bytes) {
    try {
        file_->pwrite(end_, bytes);
    } catch (const DiskFullError&) {
        is_spoiled_ = true;
        throw;
    }
    end_ += bytes.size();
}

// Called before the write: if memory is short, append() fails while the file is still unchanged,
// and never after the bytes are in the file but before their slots are in memory.
void Tail::allocate_for(const Frames& frames) {
    slots_.allocate(static_cast<std::size_t>(frames.count_max()), frames.may_have_gaps);
    if (runs_.capacity() == runs_.size()) runs_.reserve(2 * runs_.size() + 1);
}

void Tail::append(const Frames& frames, std::uint64_t durable_upto) {
    const View bytes = frames.block.bytes;
    // A single gap may span more indexes than a segment may hold, so an empty tail takes any
    // batch.
    require(frames.span.first == last_index() + 1 && (fits(frames) || is_empty()),
            "an append continues the tail and fits");
    const Mark mark{static_cast<std::uint32_t>(bytes.size()), frames.span.first, durable_upto,
                    frames_hash(bytes), 0};
    buffer_.resize(mark_size + bytes.size());
    allocate_for(frames);
    encode_mark(mark, row_.uuid, end_, MutableView(buffer_).first(mark_size));
    std::memcpy(buffer_.data() + mark_size, bytes.data(), bytes.size());
    const std::uint64_t base = end_ + mark_size;
    write(View(buffer_));
    if (buffer_.capacity() > buffer_kept_max) Bytes().swap(buffer_);
    for (std::size_t at = 0; at < bytes.size();) {
        if (!frames.may_have_gaps) {
            const std::uint32_t size = load<FrameHeader>(bytes.data() + at).size;
            slots_.push({static_cast<std::uint32_t>(base + at), size}, slots_.end() + 1);
            at += frame_size(size);
            continue;
        }
        const Frame frame = frame_at(bytes, at);
        slots_.push(frame.slot(base + at), frame.end());
        if (frame.is_gap()) row_.valid_from = std::max(row_.valid_from, frame.gap().valid_from);
        at += frame.total();
    }
    extend_runs(runs_, frames.span.term, frames.span.first);
    marked_upto_ = durable_upto;
    ++appends_;
    require(last_index() + 1 == frames.span.end, "frames and gaps tile their span");
}

void Tail::mark(std::uint8_t flags, std::uint64_t durable_upto) {
    require(has_room_for_marks(1), "marks have their own room");
    std::uint8_t bytes[mark_size];
    encode_mark(Mark{0, last_index() + 1, durable_upto, 0, flags}, row_.uuid, end_,
                MutableView(bytes));
    write(View(bytes));
    marked_upto_ = durable_upto;
}

std::shared_ptr<Segment> Tail::seal() {
    require(!is_empty(), "an empty tail is dropped, not sealed");
    Row row = row_;
    row.sealed = true;
    row.last_index = last_index();
    row.end_offset = slots_.back().end();
    std::vector<TermRun> runs = runs_;
    auto index = std::make_shared<SlotIndex>(std::move(slots_), std::move(runs), row.valid_from);
    return or_undo(
        [&] {
            auto segment = std::make_shared<Segment>(env_, directory_, row, index, file_);
            segment->set_liveness(std::move(liveness_));
            return segment;
        },
        [&] { slots_ = index->take_slots(); });
}

std::shared_ptr<SlotIndex> Tail::index_copy() const {
    return std::make_shared<SlotIndex>(slots_, runs_, row_.valid_from);
}

Frames Tail::read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) const {
    std::size_t hint = 0;
    const SlotView::Extent extent = slots_.view().extent(first, end, max_bytes, hint);
    const auto size = static_cast<std::size_t>(extent.to - extent.from);
    const SegmentBytes source{read_ahead_.at(*file_, extent.from, size, end_), extent.from,
                              row_.uuid, path_};
    return gather(source, first, extent.end, max_bytes);
}

void Tail::release(std::uint64_t index, Release policy) {
    std::size_t hint = released_hint_;
    const SlotView view = slots_.view();
    const std::size_t position = view.position_of(index, hint);
    released_hint_ = hint;
    if (!view.slots[position].is_gap()) liveness_.release(position, policy);
}

std::uint64_t Tail::entries() const { return entries_in(slots_.view()); }

std::uint64_t Tail::offset_of(std::uint64_t index) const {
    std::size_t hint = 0;
    const SlotView view = slots_.view();
    return view.slots[view.position_of(index, hint)].offset;
}

Frame Tail::frame(std::uint64_t index, Block& keep) const {
    const SlotView view = slots_.view();
    std::size_t hint = 0;
    const IndexSlot& slot = view.slots[view.position_of(index, hint)];
    const auto size = static_cast<std::size_t>(slot.end() - slot.offset);
    const SegmentBytes source{read_ahead_.at(*file_, slot.offset, size, end_), slot.offset,
                              row_.uuid, path_};
    keep = source.block;
    return checked_frame(source, index);
}

std::uint64_t Tail::end_of(std::uint64_t index) const {
    Block keep;
    return offset_of(index) + frame(index, keep).total();
}

}  // namespace copycat
