#include "recovery.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "lost_found.hpp"
#include "obsolete_files.hpp"
#include "packed.hpp"
#include "scan.hpp"

namespace copycat {
namespace {

// How many bytes of the unproven end of a log are copied at a time.
constexpr std::uint64_t copy_bytes = std::uint64_t{1} << 20;
// A manifest of a million segments is smaller than this; a larger file is not read.
constexpr std::uint64_t max_manifest_bytes = std::uint64_t{1} << 28;
// How often a read-only open is tried while another process changes the log.
constexpr int max_looks = 16;
// The size of the segment that an open begins: it is filled with zeros in a few milliseconds.
constexpr std::uint64_t first_segment_bytes = std::uint64_t{4} << 20;
// Room for the marks of an open, an idle time and a close.
constexpr std::uint64_t marks_of_a_run = 3;

class Recovery {
public:
    Recovery(const std::shared_ptr<Env>& env, const std::string& directory,
             const LogOptions& options, PreallocatedFiles& spares)
        : env_(env),
          directory_(directory),
          options_(options),
          preallocated_files_(spares),
          file_cache_(std::make_shared<FileCache>(env)) {}

    RecoveryResult run() {
        names_ = env_->list(directory_);
        if (std::find(names_.begin(), names_.end(), "manifest") == names_.end())
            begin_directory();
        else
            read_manifest();
        choose_next_id();
        open_segments();
        // Nothing was changed so far, and nothing below refuses.
        if (options_.read_only) {
            if (out_.tail == nullptr) placeholder_tail();
        } else {
            // Files that a crash left over are removed first: they may be what fills the disk,
            // and a process that dies again and again during recovery must not fill it either.
            remove_obsolete_files(true);
            for (const auto& segment : rebuilt_) {
                write_index(*env_, segment->index_file(), segment->row(), *segment->index());
                segment->map_index();
            }
            reopen_tail();
            shorten_sealed();
            out_.lost = newest_torn_files(*env_, directory_);
        }
        remove_obsolete_files(false);
        out_.report.segments = out_.segments.size() + (out_.tail == nullptr ? 0 : 1);
        return std::move(out_);
    }

private:
    // F27: a new log writes an empty manifest before any segment, so a directory with segments
    // and without a manifest has lost its manifest.
    void begin_directory() {
        const std::string path = manifest_path(directory_);
        for (const std::string& name : names_)
            if (parse_name(name).role == FileRole::segment)
                throw CorruptError(
                    "manifest " + path + " is missing but segment " + name + " is there", path, 0);
        if (options_.read_only) throw NotFoundError("open", path, ENOENT);
        out_.manifest.generation = 1;
        env_->replace_file(path, View(encode_manifest(out_.manifest)));
    }

    void read_manifest() {
        const std::string path = manifest_path(directory_);
        out_.manifest = decode_manifest(View(env_->read_file(path, max_manifest_bytes)), path);
        durable_rows_ = out_.manifest.rows;
        for (const Row& row : out_.manifest.rows)
            if (row.sealed) proven_.emplace(row.id, row.version);
        std::set<std::uint64_t, std::greater<>> pending;
        for (const std::string& name : names_) {
            const FileName file = parse_name(name);
            if (file.role == FileRole::pending && file.id > out_.manifest.generation)
                pending.insert(file.id);
        }
        if (pending.empty()) return;
        // Whether or not one of them is used, recovery writes a manifest that is newer than all
        // of them and durable.
        out_.report.clean = false;
        has_pending_ = true;
        for (const std::uint64_t generation : pending)
            if (take_pending(generation)) break;
        out_.manifest.generation = std::max(out_.manifest.generation, *pending.begin());
    }

    // Reads a pending manifest: the segments after a change that no sync followed. It replaces the
    // durable manifest if every file that it names is complete.
    bool take_pending(std::uint64_t generation) {
        const std::string path = pending_path(directory_, generation);
        try {
            Manifest manifest =
                decode_manifest(View(env_->read_file(path, max_manifest_bytes)), path);
            for (const Row& row : manifest.rows) {
                if (proven_.contains({row.id, row.version})) continue;
                const std::string name = segment_path(directory_, row.id, row.version);
                const auto file = open_segment(*env_, row, name);
                check_header(*file, row, name);
                if (row.sealed) scans_.insert_or_assign(row.id, scan_sealed(*file, row, name));
            }
            out_.manifest = std::move(manifest);
            return true;
        } catch (const CorruptError&) {
        } catch (const FormatError&) {
        } catch (const NotFoundError&) {
            // A writer in another process made this manifest durable meanwhile: start again.
            if (options_.read_only && !env_->exists(path))
                throw CorruptError("manifest " + path + " was deleted while it was read", path, 0);
        }
        scans_.clear();
        return false;
    }

    // The id of a segment is never used again, not even that of a file that no manifest named.
    void choose_next_id() {
        std::uint64_t& next = out_.manifest.next_id;
        for (const std::string& name : names_) next = std::max(next, parse_name(name).id + 1);
    }

    void open_segments() {
        for (const Row& row : out_.manifest.rows) {
            const std::string path = segment_path(directory_, row.id, row.version);
            std::shared_ptr<File> file;
            try {
                file = row.sealed || options_.read_only ? open_segment(*env_, row, path)
                                                        : env_->open(path, Access::write);
            } catch (const NotFoundError&) {
                throw CorruptError("segment " + path + " of entries from " +
                                       std::to_string(row.first_index) + " on is missing",
                                   path, 0, row.first_index);
            }
            const std::uint64_t max_size = check_header(*file, row, path);
            if (!row.packed) sizes_[row.id] = file->size();
            if (row.sealed)
                open_sealed(row, path, *file);
            else
                open_tail(row, path, max_size, std::move(file));
        }
    }

    void open_sealed(const Row& row, const std::string& path, File& file) {
        const std::string name = index_path(directory_, row.id, row.version);
        const auto scanned = scans_.find(row.id);
        const bool is_unproven = scanned != scans_.end();
        auto index = is_unproven ? nullptr : SlotIndex::open(*env_, name, row, true);
        const bool is_present = index != nullptr || is_unproven;
        if (index == nullptr) {
            Scan scan = is_unproven ? std::move(scanned->second) : scan_sealed(file, row, path);
            if (is_unproven && row.version == first_version)
                durable_upto_ = std::max(durable_upto_, scan.durable_upto);
            index = std::make_shared<SlotIndex>(std::move(scan.slots), std::move(scan.runs),
                                                scan.valid_from);
        }
        auto segment = std::make_shared<Segment>(env_, directory_, row, std::move(index), nullptr);
        segment->set_file_cache(file_cache_, options_.mapped);
        if (row.packed) segment->set_packed_bytes(file.stored_size());
        if (!is_present) {
            rebuilt_.push_back(segment);
            ++out_.report.rebuilt_indexes;
        }
        // A file that a compaction wrote was synced before a manifest named it.
        if (is_unproven && row.version == first_version) ++unproven_;
        out_.segments.push_back(std::move(segment));
    }

    void open_tail(const Row& row, const std::string& path, std::uint64_t max_size,
                   std::shared_ptr<File> file) {
        Tail::Content content{.slots = Slots(row.first_index), .runs = {}};
        out_.has_tail_index = read_closed_tail(row, *file, content);
        if (out_.has_tail_index) {
            durable_upto_ = std::max(durable_upto_, content.marked_upto);
        } else {
            Scan scan = scan_tail(*file, row, path);
            durable_upto_ = std::max(durable_upto_, scan.durable_upto);
            torn_bytes_ = scan.torn_bytes;
            out_.report.clean = out_.report.clean && scan.is_closed;
            content.slots = std::move(scan.slots);
            content.runs = std::move(scan.runs);
            content.valid_from = scan.valid_from;
            content.end_offset = scan.end_offset;
            content.marked_upto = scan.durable_upto;
        }
        out_.tail = std::make_unique<Tail>(env_, directory_, row, max_size, options_.max_entries,
                                           std::move(file), std::move(content));
        if (torn_bytes_ == 0) return;
        out_.report.dropped_bytes = torn_bytes_;
        out_.report.dropped_from_index = out_.tail->last_index() + 1;
    }

    // Takes the content of the tail from the index file that a clean stop wrote, if the close mark
    // stands right after the last frame: then no scan is needed. The index file is deleted before
    // the next append, so it is never out of date.
    bool read_closed_tail(const Row& row, File& file, Tail::Content& content) {
        const auto index =
            SlotIndex::open(*env_, index_path(directory_, row.id, row.version), row, false);
        if (index == nullptr || !index->verify(*env_)) return false;
        const SlotView& view = index->view();
        const std::uint64_t end = view.count() > 0 ? view.slots.back().end() : segment_data_offset;
        const std::uint64_t last_index = view.end - 1;
        if (!find_close_mark(file, row, end, last_index, content.end_offset)) return false;
        content.slots = Slots(view);
        content.runs = index->runs();
        content.valid_from = index->valid_from();
        content.marked_upto = last_index;
        return true;
    }

    // For a read-only open of a directory whose first open ended before it began a segment.
    void placeholder_tail() {
        require(out_.segments.empty(), "a log with segments has a tail");
        out_.tail =
            std::make_unique<Tail>(env_, directory_, Row{}, 0, 0, nullptr,
                                   Tail::Content{.slots = Slots(Row{}.first_index), .runs = {}});
    }

    void reopen_tail() {
        const bool can_reuse = out_.tail != nullptr && out_.report.clean &&
                               out_.tail->has_room_for_marks(marks_of_a_run);
        if (!can_reuse) return start_fresh_tail();
        // This mark ends the effect of the close mark: from here on the log counts as not closed.
        // It need not be synced: if a power loss loses it, everything that can be read is durable.
        out_.tail->mark(mark_flag_idle, out_.tail->last_index());
    }

    // C7: after an unclean stop nothing is appended to the old tail, and entries that no mark
    // proves durable are copied into a fresh segment. A new log gets its first segment here too.
    void start_fresh_tail() {
        const std::unique_ptr<Tail> old = std::move(out_.tail);
        Row row;
        if (old != nullptr) {
            const Row& lowest = lowest_unproven(*old);
            const std::uint64_t last = old->last_index();
            const std::uint64_t kept_upto =
                std::clamp(durable_upto_, lowest.first_index - 1, last);
            row.first_index = kept_upto + 1;
            row.prev_term =
                kept_upto < lowest.first_index ? lowest.prev_term : term_at(*old, kept_upto);
            keep_torn_bytes(*env_, directory_, old->row(), *old->file(), old->end_offset(),
                            torn_bytes_);
            seal_unproven(*old, row);
        }
        if (out_.tail == nullptr) begin_tail(row, 0, 0);
        out_.tail->file()->fsync();
        env_->sync_directory(directory_);
        replace_manifest();
        for (const auto& segment : out_.segments) segment->map_index();
        out_.has_tail_index = false;
    }

    // Begins a tail for an append of `bytes`, where `left` bytes are still to be copied in all.
    // Small appends are faster into a file that is filled with zeros. To fill a whole segment
    // would make every open slow, so the first segment is short, and the next one is filled in
    // the background.
    void begin_tail(Row row, std::uint64_t bytes, std::uint64_t left) {
        row.id = out_.manifest.next_id++;
        const std::uint64_t whole = std::max(options_.max_segment_size, size_for(bytes));
        const bool is_short = left <= first_segment_bytes / 2;
        const std::uint64_t size = is_short ? std::min(whole, first_segment_bytes) : whole;
        out_.tail = Tail::begin(env_, directory_, preallocated_files_.take_first(size, is_short),
                                row, options_.max_entries);
        sizes_[row.id] = size;
    }

    // An upper bound of the bytes that `old` and the unproven segments hold above `kept_upto`.
    std::uint64_t bytes_above(const Tail& old, std::uint64_t kept_upto) const {
        std::uint64_t bytes = old.end_offset();
        if (kept_upto >= old.first_index() && kept_upto < old.last_index())
            bytes -= old.offset_of(kept_upto + 1);
        for (std::size_t i = out_.segments.size() - unproven_; i < out_.segments.size(); ++i)
            bytes += out_.segments[i]->row().end_offset;
        return bytes;
    }

    const Row& lowest_unproven(const Tail& old) const {
        if (unproven_ == 0) return old.row();
        return out_.segments[out_.segments.size() - unproven_]->row();
    }

    Segment& unproven_segment_of(std::uint64_t index) const {
        for (std::size_t i = out_.segments.size() - unproven_;; ++i)
            if (index <= out_.segments[i]->last_index()) return *out_.segments[i];
    }

    std::uint64_t term_at(const Tail& old, std::uint64_t index) const {
        return index < old.first_index() ? unproven_segment_of(index).term_at(index)
                                         : old.term_at(index);
    }

    // Copies what is above `kept_upto` into fresh segments, and seals what is not. How much was
    // not proven durable knows no limit: it may fill several.
    void seal_unproven(Tail& old, Row row) {
        const std::uint64_t kept_upto = row.first_index - 1;
        const std::uint64_t last = old.last_index();
        std::vector<std::shared_ptr<Segment>> copies;
        for (std::uint64_t next = kept_upto + 1; next <= last;
             next = out_.tail->last_index() + 1) {
            const Frames frames = unproven_frames(old, next);
            if (out_.tail == nullptr || !out_.tail->fits(frames)) {
                if (out_.tail != nullptr) copies.push_back(sealed_copy(row));
                begin_tail(row, frames.nbytes(), bytes_above(old, kept_upto));
            }
            out_.tail->append(frames, kept_upto);
        }
        out_.report.copied_entries = last - kept_upto;
        // A segment that lies wholly above `kept_upto` is no longer named; its file is obsolete.
        for (; unproven_ > 0 && out_.segments.back()->first_index() > kept_upto; --unproven_)
            out_.segments.pop_back();
        if (kept_upto >= old.first_index()) {
            out_.segments.push_back(old.seal());
            out_.segments.back()->set_file_cache(file_cache_, options_.mapped);
            ++unproven_;
        }
        if (unproven_ > 0 && kept_upto < out_.segments.back()->last_index())
            out_.segments.back()->cut(kept_upto, out_.segments.back()->end_of(kept_upto));
        unproven_ += copies.size();
        out_.segments.insert(out_.segments.end(), copies.begin(), copies.end());
        for (std::size_t i = out_.segments.size() - unproven_; i < out_.segments.size(); ++i) {
            const Segment& segment = *out_.segments[i];
            write_index(*env_, segment.index_file(), segment.row(), *segment.index());
        }
    }

    // The frames from `next` on that fit into one append to a fresh segment; at least one entry.
    Frames unproven_frames(const Tail& old, std::uint64_t next) const {
        const std::uint64_t end = old.last_index() + 1;
        const std::uint64_t bytes = std::min(copy_bytes, options_.max_segment_size - size_for(0));
        const Frames frames = next < old.first_index()
                                  ? unproven_segment_of(next).read(next, end, bytes)
                                  : old.read(next, end, bytes);
        if (frames.count_max() <= options_.max_entries) return frames;
        return slice(frames, next, next + options_.max_entries);
    }

    // Syncs and seals the fresh tail, which is full, and makes `row` the row of the next one.
    std::shared_ptr<Segment> sealed_copy(Row& row) {
        out_.tail->file()->fsync();
        row.first_index = out_.tail->last_index() + 1;
        row.prev_term = out_.tail->last_term();
        return out_.tail->seal();
    }

    // Frees the disk space that is allocated behind the last byte of each sealed segment; the
    // manifest names that byte by now. If this open ends early, the next one does the rest.
    void shorten_sealed() {
        for (const auto& segment : out_.segments) {
            const std::uint64_t length = whole_blocks(segment->row().end_offset);
            const auto size = sizes_.find(segment->row().id);
            if (size != sizes_.end() && size->second > length)
                env_->open(segment->path(), Access::write)->shorten(length);
        }
    }

    void replace_manifest() {
        Manifest& manifest = out_.manifest;
        ++manifest.generation;
        manifest.rows.clear();
        for (const auto& segment : out_.segments) manifest.rows.push_back(segment->row());
        manifest.rows.push_back(out_.tail->row());
        env_->replace_file(manifest_path(directory_), View(encode_manifest(manifest)));
    }

    static const Row* named(const std::vector<Row>& rows, const FileName& file) {
        const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& each) {
            return each.id == file.id && each.version == file.version;
        });
        return row == rows.end() ? nullptr : &*row;
    }

    // is_early: recovery has not yet replaced the manifest, so the durable manifest on the disk
    // may differ from the one that was chosen, and the files of both are needed.
    bool is_needed(const FileName& file, bool is_early) const {
        if (file.role == FileRole::other || file.role == FileRole::manifest) return true;
        if (file.role == FileRole::leftover) return false;
        if (file.role == FileRole::pending) return is_early && has_pending_;
        if (is_early && has_pending_ && named(durable_rows_, file) != nullptr) return true;
        const Row* row = named(out_.manifest.rows, file);
        if (row == nullptr) return false;
        return file.role == FileRole::segment || row->sealed || out_.has_tail_index;
    }

    // F4: deletes the files that an interrupted operation left over. Files that no log writes
    // stay.
    void remove_obsolete_files(bool is_early) {
        std::erase_if(names_, [&](const std::string& name) {
            if (is_needed(parse_name(name), is_early)) return false;
            out_.report.obsolete_files.push_back(name);
            const std::string path = join(directory_, name);
            if (!options_.read_only && env_->exists(path)) env_->unlink(path);
            return true;
        });
    }

    std::shared_ptr<Env> env_;
    const std::string& directory_;
    const LogOptions& options_;
    PreallocatedFiles& preallocated_files_;
    std::shared_ptr<FileCache> file_cache_;
    std::vector<std::string> names_;
    std::vector<std::shared_ptr<Segment>> rebuilt_;
    // (id, version) of the segments that are sealed in the durable manifest.
    std::set<std::pair<std::uint64_t, std::uint32_t>> proven_;
    std::map<std::uint64_t, Scan> scans_;           // by id: segments sealed in a pending one only
    std::vector<Row> durable_rows_;                 // of the durable manifest
    std::map<std::uint64_t, std::uint64_t> sizes_;  // by id: file sizes of plain segments
    bool has_pending_ = false;  // a pending manifest newer than the durable one
    std::size_t unproven_ = 0;  // how many of the last segments are not proven durable
    std::uint64_t durable_upto_ = 0;
    std::uint64_t torn_bytes_ = 0;
    RecoveryResult out_;
};

using Damage = std::tuple<std::string, std::int64_t, std::uint64_t>;

}  // namespace

RecoveryResult recover(const std::shared_ptr<Env>& env, const std::string& directory,
                       const LogOptions& options, PreallocatedFiles& spares) {
    const auto begun = std::chrono::steady_clock::now();
    RecoveryResult out;
    std::optional<Damage> previous;
    for (int look = 1; look <= max_looks; ++look) {
        try {
            out = Recovery(env, directory, options, spares).run();
            break;
        } catch (const CorruptError& error) {
            Damage damage{error.path, error.offset, error.index};
            if (!options.read_only || look == max_looks || previous == damage) throw;
            previous = std::move(damage);
        }
    }
    out.report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    return out;
}

}  // namespace copycat
