#include "compactor.hpp"

#include <algorithm>
#include <optional>

#include "crc32c.hpp"
#include "frame.hpp"
#include "packed.hpp"
#include "scan.hpp"
#include "sequential_reader.hpp"
#include "throttle.hpp"

namespace copycat {
namespace {

// A rewrite writes pieces of this size, and has each one written back before the next, so that a
// sync of the log never waits for much of the rewrite.
constexpr std::size_t write_bytes = std::size_t{1} << 18;
// Left free beyond what a rewrite needs, for manifests and the index files of the log (F12).
constexpr std::uint64_t slack_bytes = std::uint64_t{1} << 20;

// A segment is packed if that makes it at most 7/8 of its size, judged after so many bytes.
constexpr std::uint64_t trial_bytes = std::uint64_t{1} << 20;

// The most bytes that the new segment and its index can take: the frames that are copied, and a
// gap for each run of deleted ones.
std::uint64_t bytes_needed(const Rewrite::Group& group) {
    constexpr std::uint64_t slot_bytes = sizeof(IndexSlot) + sizeof(std::uint32_t);
    constexpr std::uint64_t gap_bytes = frame_size(sizeof(GapBody)) + slot_bytes;
    std::uint64_t bytes = segment_data_offset + mark_size + sizeof(IndexHeader);
    for (std::size_t i = 0; i < group.rows.size(); ++i) {
        const SlotView view = group.indexes[i]->view().upto(group.rows[i].last_index);
        // A gap has one term and ends with its segment, so each run of terms may need one more
        // gap.
        bytes += group.indexes[i]->runs().size() * (gap_bytes + sizeof(TermRunRow));
        bool is_gap = false;
        for (std::size_t position = 0; position < view.count(); ++position) {
            const bool is_deleted = has_bit(group.drops[i], position);
            const IndexSlot& slot = view.slots[position];
            if (!is_deleted)
                bytes += slot.end() - slot.offset + slot_bytes;
            else if (!is_gap)
                bytes += gap_bytes;
            is_gap = is_deleted;
        }
    }
    return bytes;
}

struct Abandoned {};
struct NotWorth {};

// Writes the file of the new segment: frames one after another, and at last the mark and the
// header that stand before them. Throws NotWorth when a packed file would save too little.
class Output {
public:
    Output(Env& env, RewriteThrottle& throttle, const std::string& directory, Row& row)
        : row_(row),
          throttle_(throttle),
          file_(env.create(segment_path(directory, row.id, row.version))),
          slots_(row.first_index) {
        if (row.packed) packer_.emplace(file_, row);
    }

    void frame(const Frame& frame, View bytes) {
        require(offset_ + buffer_.size() + bytes.size() <= max_file_size,
                "an offset in a segment has 32 bits");
        extend_runs(runs_, frame.term, frame.index);
        slots_.push(frame.slot(offset_ + buffer_.size()), frame.end());
        if (frame.is_gap()) row_.valid_from = std::max(row_.valid_from, frame.gap().valid_from);
        std::uint8_t crc[4];
        store(crc, frame.crc);
        hash_ = crc32c(View(crc), hash_);
        buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
        if (buffer_.size() >= write_bytes) write_buffer();
    }

    // Writes the rest, and syncs the file; sets where the segment ends in its row.
    void finish() {
        write_buffer();
        const std::uint64_t begin = segment_data_offset + mark_size;
        std::uint8_t bytes[mark_size];
        encode_mark(Mark{static_cast<std::uint32_t>(offset_ - begin), row_.first_index,
                         row_.first_index - 1, hash_, 0},
                    row_.uuid, segment_data_offset, MutableView(bytes));
        write(segment_data_offset, View(bytes));
        write(0, View(encode_header(row_, slots_.count(), offset_)));
        if (packer_) {
            packer_->finish();
            if (!packer_->saves()) throw NotWorth{};
        }
        file_->fsync();
        throttle_.moved();
        file_->drop_cache();
        row_.end_offset = offset_;
    }
    std::uint64_t stored_bytes() const { return packer_ ? file_->size() : offset_; }
    Slots& slots() { return slots_; }
    std::vector<TermRun>& runs() { return runs_; }

private:
    void write_buffer() {
        write(offset_, View(buffer_));
        if (!packer_) file_->write_out(offset_, offset_ + buffer_.size());
        throttle_.moved();
        offset_ += buffer_.size();
        buffer_.clear();
        if (packer_ && packer_->plain_bytes() >= trial_bytes && !packer_->saves())
            throw NotWorth{};
    }
    void write(std::uint64_t offset, View bytes) {
        if (packer_)
            packer_->write(offset, bytes);
        else
            file_->pwrite(offset, bytes);
    }

    Row& row_;
    RewriteThrottle& throttle_;
    std::shared_ptr<File> file_;
    std::optional<Packer> packer_;
    std::uint64_t offset_ = segment_data_offset + mark_size;
    Bytes buffer_;
    Slots slots_;
    std::vector<TermRun> runs_;
    std::uint32_t hash_ = 0;
};

// Copies segments in order. Deleted entries become gaps, at least one for each run of terms.
class Copier {
public:
    Copier(Output& out, RewriteThrottle& throttle, std::uint64_t horizon,
           const std::atomic<bool>& is_abandoned)
        : out_(out), throttle_(throttle), horizon_(horizon), is_abandoned_(is_abandoned) {}

    void segment(File& file, const Row& row, const std::string& path, const Bits& drops) {
        SequentialReader reader(file, &throttle_);
        std::uint64_t at = segment_data_offset;
        std::uint64_t index = row.first_index;
        for (std::size_t position = 0; index <= row.last_index;) {
            if (is_abandoned_.load(std::memory_order_relaxed)) throw Abandoned{};
            const View header = at < row.end_offset ? reader.at(at, mark_size, index) : View{};
            Mark mark;
            if (parse_mark(header, 0, row.uuid, at, mark)) {
                at += mark_size;
                continue;
            }
            const Frame frame = checked(reader, row, path, at, index);
            const std::uint64_t end = std::min(frame.end(), row.last_index + 1);
            if (frame.is_gap())
                gap(frame, end, frame.gap().valid_from);
            else if (has_bit(drops, position))
                drop(frame);
            else
                keep(frame, reader.at(at, frame.total(), index));
            at += frame.total();
            index = frame.end();
            ++position;
        }
    }
    void write_gap() {
        if (!gap_) return;
        const Frames frames = encode_gap(gap_->span, gap_->time_ms, gap_->valid_from);
        gap_.reset();
        out_.frame(frame_at(frames.block.bytes, 0), frames.block.bytes);
    }
    std::uint64_t dropped() const { return dropped_; }

private:
    struct OpenGap {
        Span span;
        std::uint64_t time_ms;
        std::uint64_t valid_from;
    };

    static Frame checked(SequentialReader& reader, const Row& row, const std::string& path,
                         std::uint64_t at, std::uint64_t index) {
        const auto corrupt = [&](const std::string& what) {
            throw CorruptError("entry " + std::to_string(index) + " is corrupt (" + path +
                                   ", byte " + std::to_string(at) + "): " + what,
                               path, static_cast<std::int64_t>(at), index);
        };
        const std::uint64_t left = row.end_offset - std::min(at, row.end_offset);
        if (left < sizeof(FrameHeader)) corrupt("the segment ends before it");
        const View head = reader.at(at, sizeof(FrameHeader), index);
        if (head.size() < sizeof(FrameHeader)) corrupt("the file ends before it");
        const std::uint64_t size = load<FrameHeader>(head.data()).size;
        if (size > max_payload_size || frame_size(size) > left) corrupt("it is cut short");
        Frame frame;
        const FrameFault fault = parse_frame(reader.at(at, frame_size(size), index), 0, frame);
        if (fault != FrameFault::none) corrupt(describe(fault));
        if (frame.index != index)
            corrupt("entry " + std::to_string(frame.index) + " is in its place");
        return frame;
    }

    void keep(const Frame& frame, View bytes) {
        write_gap();
        out_.frame(frame, bytes);
    }
    void drop(const Frame& frame) {
        ++dropped_;
        gap(frame, frame.index + 1, horizon_);
    }
    void gap(const Frame& frame, std::uint64_t end, std::uint64_t valid_from) {
        if (gap_ && gap_->span.term != frame.term) write_gap();
        if (!gap_) gap_ = OpenGap{{frame.term, frame.index, frame.index}, 0, 0};
        gap_->span.end = end;
        gap_->time_ms = frame.time_ms;
        gap_->valid_from = std::max(gap_->valid_from, valid_from);
    }

    Output& out_;
    RewriteThrottle& throttle_;
    std::uint64_t horizon_;
    const std::atomic<bool>& is_abandoned_;
    std::optional<OpenGap> gap_;
    std::uint64_t dropped_ = 0;
};

}  // namespace

Rewrite::~Rewrite() {
    if (!is_ours()) return;
    const std::lock_guard lock(mutex_);
    if (is_done()) discard_all();
}

void Rewrite::run() {
    if (!is_ours()) return;
    const std::lock_guard lock(mutex_);
    if (is_done() || is_abandoned_) return;
    try {
        for (Group& group : groups_) write(group);
        if (is_abandoned_) throw Abandoned{};
        env_->sync_directory(directory_);
    } catch (const Abandoned&) {
        discard_all();
        return;
    } catch (...) {
        discard_all();
        is_abandoned_ = true;
        throw;
    }
    is_done_.store(true, std::memory_order_release);
}

void Rewrite::abandon() {
    is_abandoned_ = true;
    if (!is_ours()) return;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || !is_done())
        return;  // the run ends soon, and deletes its files itself or in the destructor
    discard_all();
    is_done_ = false;
}

void Rewrite::end() noexcept {
    is_abandoned_ = true;
    if (!is_ours()) return;
    const std::lock_guard lock(mutex_);  // waits for a run, which ends soon
    if (is_done()) discard_all();
    is_done_ = false;
}

bool Rewrite::may_write(const Row& row) {
    const bool is_ours = std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
        return group.row.id == row.id && group.row.version == row.version;
    });
    if (!is_ours) return false;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    return !lock.owns_lock() || is_done() || !is_abandoned_;
}

void Rewrite::write(Group& group) {
    const std::uint64_t needed = bytes_needed(group);
    group.indexes.clear();  // unmaps index files, which may be deleted by now
    const std::uint64_t free = env_->free_space(directory_);
    if (free < needed + slack_bytes)
        throw DiskFullError("rewrite into " + std::to_string(needed) + " bytes (" +
                                std::to_string(free) + " free) in",
                            directory_, ENOSPC);
    env_->random(MutableView(group.row.uuid));
    if (!compress_ || !write_as(group, true)) write_as(group, false);
}

// Calls `each` for each source file. Sets group.missing when a file does not exist: a trim, a
// truncation or a reset has deleted it meanwhile, or else it is lost, which install() finds out.
template <typename Each>
void Rewrite::each_source(Group& group, Each each) {
    for (std::size_t i = 0; i < group.rows.size(); ++i) {
        const Row& row = group.rows[i];
        const std::string path = segment_path(directory_, row.id, row.version);
        std::shared_ptr<File> file;
        try {
            file = open_segment(*env_, row, path);
        } catch (const NotFoundError&) {
            group.missing = path;
            discard(group);
            return;
        }
        each(*file, row, path, group.drops[i]);
        file->drop_cache();
    }
}

// Writes and verifies the new segment. False when packing would save too little: the caller then
// writes a plain one.
bool Rewrite::write_as(Group& group, bool packed) {
    discard(group);
    group.row.packed = packed;
    RewriteThrottle throttle(*env_, *log_status_);
    Output out(*env_, throttle, directory_, group.row);
    Copier copier(out, throttle, horizon_, is_abandoned_);
    try {
        each_source(group, [&](File& file, const Row& row, const std::string& path,
                               const Bits& drops) { copier.segment(file, row, path, drops); });
        if (!group.missing.empty()) return true;
        copier.write_gap();
        out.finish();
    } catch (const NotWorth&) {
        return false;
    }
    group.bytes_after = out.stored_bytes();
    group.entries_dropped = copier.dropped();
    const SlotIndex written(out.slots(), out.runs(), group.row.valid_from);
    const std::string path = index_path(directory_, group.row.id, group.row.version);
    write_index(*env_, path, group.row, written);
    verify(group, written.view(), throttle);
    return true;
}

// Reads the new segment back, from the disk and not from the page cache.
void Rewrite::verify(Group& group, const SlotView& written, RewriteThrottle& throttle) {
    const std::string path = segment_path(directory_, group.row.id, group.row.version);
    const auto file = open_segment(*env_, group.row, path);
    check_header(*file, group.row, path);
    Scan scan = scan_sealed(*file, group.row, path, &throttle);
    file->drop_cache();
    const SlotView read_back = scan.slots.view();
    const auto same = [](const IndexSlot& a, const IndexSlot& b) {
        return a.offset == b.offset && a.size == b.size;
    };
    require(read_back.end == written.end && scan.valid_from == group.row.valid_from &&
                std::equal(read_back.slots.begin(), read_back.slots.end(), written.slots.begin(),
                           written.slots.end(), same) &&
                std::equal(read_back.starts.begin(), read_back.starts.end(),
                           written.starts.begin(), written.starts.end()),
            "a rewritten segment reads back as it was written");
    group.index = SlotIndex::open(*env_, index_path(directory_, group.row.id, group.row.version),
                                  group.row, true);
    if (group.index == nullptr || !group.index->verify(*env_))
        group.index = std::make_shared<SlotIndex>(std::move(scan.slots), std::move(scan.runs),
                                                  scan.valid_from);
}

void Rewrite::discard(const Group& group) noexcept {
    try {
        env_->discard(segment_path(directory_, group.row.id, group.row.version));
        env_->discard(index_path(directory_, group.row.id, group.row.version));
    } catch (const std::bad_alloc&) {  // obsolete files: the next open removes them (F4, F16)
    }
}

void Rewrite::discard_all() noexcept {
    for (const Group& group : groups_)
        if (!group.is_installed) discard(group);
}

}  // namespace copycat
