#include "log.hpp"

#include <algorithm>

#include "lost_found.hpp"

namespace copycat {
namespace {

// Below this a segment could not hold its header and a small batch.
constexpr std::uint64_t min_segment_size = 2 * segment_data_offset;
constexpr char lock_name[] = "lock";

LogOptions checked(LogOptions options) {
    if (options.max_segment_size < min_segment_size || options.max_segment_size > max_file_size)
        throw std::invalid_argument("max_segment_size must be " +
                                    std::to_string(min_segment_size) + " to " +
                                    std::to_string(max_file_size) + " bytes, not " +
                                    std::to_string(options.max_segment_size));
    if (options.max_entries == 0 || options.max_entries > max_file_size)
        throw std::invalid_argument("max_entries_per_segment must be 1 to " +
                                    std::to_string(max_file_size) + ", not " +
                                    std::to_string(options.max_entries));
    return options;
}

}  // namespace

SegmentedLog::SegmentedLog(std::shared_ptr<Env> env, const std::string& directory,
                           const LogOptions& options)
    : env_(std::move(env)), directory_(directory), options_(checked(options)) {
    if (!options_.read_only) env_->make_directory(directory_);
    // From here on this very directory, and not whatever has its name later.
    if (auto directory_env = env_->inside(directory_)) env_ = std::move(directory_env);
    if (!options_.read_only) {
        lock_ = env_->lock(join(directory_, lock_name));
        handle_ = env_->open_directory(directory_);
    }
    preallocated_files_ = std::make_shared<PreallocatedFiles>(
        env_, directory_, options_.max_segment_size, options_.min_free_space);
    obsolete_files_ = std::make_shared<ObsoleteFiles>(env_, log_status_);
    RecoveryResult recovery = recover(env_, directory_, options_, *preallocated_files_);
    segments_ = std::move(recovery.segments);
    file_cache_ = std::make_shared<FileCache>(env_);
    for (const auto& segment : segments_) segment->set_file_cache(file_cache_, options_.mapped);
    tail_ = std::move(recovery.tail);
    next_id_ = recovery.manifest.next_id;
    generation_ = recovery.manifest.generation;
    has_tail_index_ = recovery.has_tail_index;
    report_ = std::move(recovery.report);
    lost_ = std::move(recovery.lost);
    durable_index_ = tail_->last_index();
}

// --- where it stands ---------------------------------------------------------------------------

std::uint64_t SegmentedLog::first_index() const {
    return segments_.empty() ? tail_->first_index() : segments_.front()->first_index();
}

EntryId SegmentedLog::before() const {
    const Row& oldest = segments_.empty() ? tail_->row() : segments_.front()->row();
    return {oldest.prev_term, oldest.first_index - 1};
}

std::vector<TermRun> SegmentedLog::term_runs() const {
    std::vector<TermRun> runs;
    for (const auto& segment : segments_)
        for (const TermRun& run : segment->runs()) extend_runs(runs, run.term, run.first);
    for (const TermRun& run : tail_->runs()) extend_runs(runs, run.term, run.first);
    return runs;
}

std::uint64_t SegmentedLog::valid_from() const {
    std::uint64_t largest = tail_->valid_from();
    for (const auto& segment : segments_) largest = std::max(largest, segment->row().valid_from);
    return largest;
}

std::uint64_t SegmentedLog::entries() {
    check_open();
    if (valid_from() == 0) return last_index() + 1 - first_index();
    std::uint64_t count = tail_->entries();
    for (const auto& segment : segments_) count += segment->entries();
    return count;
}

std::uint64_t SegmentedLog::rebuilt_indexes() const {
    std::uint64_t count = report_.rebuilt_indexes;
    for (const auto& segment : segments_) count += segment->rebuilt();
    return count;
}

std::uint64_t SegmentedLog::size() const {
    std::uint64_t bytes = tail_->end_offset();
    for (const auto& segment : segments_) bytes += segment->stored_bytes();
    return bytes;
}

std::uint64_t SegmentedLog::disk_usage() const {
    check_open();
    const auto of = [this](const std::string& path) {
        try {
            return env_->disk_usage(path);
        } catch (const NotFoundError&) {  // removed meanwhile
            return std::uint64_t{0};
        }
    };
    std::uint64_t bytes = 0;
    for (const std::string& name : env_->list(directory_))
        if (name == lock_name || parse_name(name).role != FileRole::other)
            bytes += of(join(directory_, name));
    for (const std::string& path : torn_files(*env_, directory_)) bytes += of(path);
    return bytes;
}

std::vector<SegmentInfo> SegmentedLog::segments() const {
    std::vector<SegmentInfo> out;
    for (const auto& segment : segments_) {
        const Row& row = segment->row();
        out.push_back(
            {row.id, row.version, row.first_index, row.last_index, row.end_offset, true});
    }
    const Row& row = tail_->row();
    out.push_back(
        {row.id, row.version, row.first_index, tail_->last_index(), tail_->end_offset(), false});
    return out;
}

Block SegmentedLog::slots(std::uint64_t segment_id) {
    check_open();
    for (const auto& segment : segments_)
        if (segment->row().id == segment_id) return segment->slots();
    if (tail_->row().id != segment_id)
        throw std::out_of_range("no segment " + std::to_string(segment_id));
    const auto copy = tail_->index_copy();
    Block block = copy->block();
    block.owner = copy;
    return block;
}

// --- checks ------------------------------------------------------------------------------------

void SegmentedLog::check_open() const {
    if (is_closed_) throw std::invalid_argument("the log " + directory_ + " is closed");
    log_status_->check();
}

void SegmentedLog::check_writable() const {
    check_open();
    if (options_.read_only)
        throw std::invalid_argument("the log " + directory_ + " was opened read-only");
}

void SegmentedLog::check_index(std::uint64_t index) const {
    if (index < first_index() || index > last_index())
        throw std::out_of_range("entry " + std::to_string(index) + " is outside the log " +
                                std::to_string(first_index()) + ".." +
                                std::to_string(last_index()));
}

Segment& SegmentedLog::segment_of(std::uint64_t index) {
    const auto after = std::upper_bound(
        segments_.begin(), segments_.end(), index,
        [](std::uint64_t value, const auto& segment) { return value < segment->first_index(); });
    require(after != segments_.begin(), "an index of the log lies in a segment");
    return **std::prev(after);
}

std::uint64_t SegmentedLog::term_at(std::uint64_t index) {
    if (index + 1 == first_index()) return before().term;
    return index < tail_->first_index() ? segment_of(index).term_at(index) : tail_->term_at(index);
}

// --- reading -----------------------------------------------------------------------------------

Frames SegmentedLog::read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) {
    check_open();
    check_index(first);
    if (end <= first) throw std::out_of_range("a read ends after it begins");
    check_index(end - 1);
    if (first >= tail_->first_index()) return tail_->read(first, end, max_bytes);
    return segment_of(first).read(first, end, max_bytes);
}

Frame SegmentedLog::frame(std::uint64_t index, Block& keep) {
    check_open();
    check_index(index);
    if (index >= tail_->first_index()) return tail_->frame(index, keep);
    return segment_of(index).frame(index, keep);
}

}  // namespace copycat
