#include "recovery.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "scan.hpp"

namespace copycat {
namespace {

// How much an unclean tail's rest is copied at a time.
constexpr std::uint64_t copy_bytes = std::uint64_t{1} << 20;
// Room for the marks of an open, an idle time and a close.
constexpr std::uint64_t marks_of_a_run = 3;

class Recovery {
public:
    Recovery(const std::shared_ptr<Env>& env, const std::string& directory,
             const LogOptions& options, Spares& spares)
        : env_(env), directory_(directory), options_(options), spares_(spares) {}

    Recovered run() {
        names_ = env_->list(directory_);
        if (std::find(names_.begin(), names_.end(), "manifest") == names_.end())
            begin_directory();
        else
            read_manifest();
        choose_next_id();
        open_segments();
        // Nothing was changed so far, and nothing below refuses.
        if (options_.read_only) {
            if (out_.tail == nullptr) stand_in_tail();
        } else {
            for (const auto& segment : rebuilt_) {
                write_index(*env_, segment->index_file(), segment->row(), *segment->index());
                segment->settle();
            }
            settle_tail();
        }
        remove_orphans();
        out_.report.segments = out_.segments.size() + (out_.tail == nullptr ? 0 : 1);
        return std::move(out_);
    }

private:
    // F27: an empty manifest comes first, so segments without one mean that it was lost.
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
        out_.manifest = decode_manifest(View(env_->read_file(path)), path);
        for (const Row& row : out_.manifest.rows)
            if (row.sealed) proven_.insert(row.id);
        std::set<std::uint64_t, std::greater<>> pending;
        for (const std::string& name : names_) {
            const FileName file = parse_name(name);
            if (file.role == FileRole::pending && file.id > out_.manifest.generation)
                pending.insert(file.id);
        }
        if (pending.empty()) return;
        // Taken or not: the next manifest must be newer than all of these, and durable.
        out_.report.clean = false;
        for (const std::uint64_t generation : pending)
            if (take_pending(generation)) break;
        out_.manifest.generation = std::max(out_.manifest.generation, *pending.begin());
    }

    // A shape that no sync made durable. It is the log if all that it names is whole.
    bool take_pending(std::uint64_t generation) {
        const std::string path = pending_path(directory_, generation);
        try {
            Manifest manifest = decode_manifest(View(env_->read_file(path)), path);
            for (const Row& row : manifest.rows) {
                if (proven_.contains(row.id)) continue;
                const std::string name = segment_path(directory_, row.id, row.version);
                const auto file = env_->open(name, Access::read);
                check_header(*file, row, name);
                if (row.sealed) scans_[row.id] = scan_sealed(*file, row, name);
            }
            out_.manifest = std::move(manifest);
            return true;
        } catch (const CorruptError&) {
        } catch (const FormatError&) {
        } catch (const NotFoundError&) {
        }
        scans_.clear();
        return false;
    }

    // Ids are never used again, not even those of files that no manifest ever named.
    void choose_next_id() {
        std::uint64_t& next = out_.manifest.next_id;
        for (const std::string& name : names_) next = std::max(next, parse_name(name).id + 1);
    }

    void open_segments() {
        for (const Row& row : out_.manifest.rows) {
            const std::string path = segment_path(directory_, row.id, row.version);
            std::shared_ptr<File> file;
            try {
                file = env_->open(path,
                                  row.sealed || options_.read_only ? Access::read : Access::write);
            } catch (const NotFoundError&) {
                throw CorruptError("segment " + path + " of entries from " +
                                       std::to_string(row.first_index) + " on is missing",
                                   path, 0, row.first_index);
            }
            const std::uint64_t max_size = check_header(*file, row, path);
            if (row.sealed)
                open_sealed(row, path, *file);
            else
                open_tail(row, path, max_size, std::move(file));
        }
    }

    void open_sealed(const Row& row, const std::string& path, File& file) {
        const std::uint64_t count = row.last_index + 1 - row.first_index;
        const std::string name = index_path(directory_, row.id, row.version);
        const auto scanned = scans_.find(row.id);
        const bool is_unproven = scanned != scans_.end();
        auto index = is_unproven ? nullptr : SlotIndex::open(*env_, name, row, count);
        const bool is_found = index != nullptr || is_unproven;
        if (index == nullptr) {
            Scan scan = is_unproven ? std::move(scanned->second) : scan_sealed(file, row, path);
            if (is_unproven) durable_upto_ = std::max(durable_upto_, scan.durable_upto);
            index = std::make_shared<SlotIndex>(row.first_index, std::move(scan.slots),
                                                std::move(scan.runs));
        }
        auto segment = std::make_shared<Segment>(env_, directory_, row, std::move(index), nullptr);
        if (!is_found) {
            rebuilt_.push_back(segment);
            ++out_.report.rebuilt_indexes;
        }
        if (is_unproven) ++unproven_;
        out_.segments.push_back(std::move(segment));
    }

    void open_tail(const Row& row, const std::string& path, std::uint64_t max_size,
                   std::shared_ptr<File> file) {
        Tail::Content content;
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
            content.end_offset = scan.end_offset;
            content.marked_upto = scan.durable_upto;
        }
        out_.tail = std::make_unique<Tail>(env_, directory_, row, max_size, options_.max_entries,
                                           std::move(file), std::move(content));
        if (torn_bytes_ == 0) return;
        out_.report.dropped_bytes = torn_bytes_;
        out_.report.dropped_from_index = out_.tail->last_index() + 1;
    }

    // The index file that a clean stop wrote, with the close mark right after its last frame:
    // no scan then. It goes before the next append, so what it says cannot be old.
    bool read_closed_tail(const Row& row, File& file, Tail::Content& content) {
        const auto index =
            SlotIndex::open(*env_, index_path(directory_, row.id, row.version), row, std::nullopt);
        if (index == nullptr || !index->verify()) return false;
        std::uint64_t end = segment_data_offset;
        if (index->count() > 0) {
            const IndexSlot last = index->at(index->count() - 1);
            end = last.offset + frame_size(last.size);
        }
        const std::uint64_t last_index = row.first_index + index->count() - 1;
        if (!find_close_mark(file, row, end, last_index, content.end_offset)) return false;
        content.slots.assign(index->slots().begin(), index->slots().end());
        content.runs = index->runs();
        content.marked_upto = last_index;
        return true;
    }

    // A directory whose first open ended before its first segment.
    void stand_in_tail() {
        require(out_.segments.empty(), "a log with segments has a tail");
        out_.tail =
            std::make_unique<Tail>(env_, directory_, Row{}, 0, 0, nullptr, Tail::Content{});
    }

    void settle_tail() {
        const bool goes_on = out_.tail != nullptr && out_.report.clean &&
                             out_.tail->has_room_for_marks(marks_of_a_run);
        if (!goes_on) return start_fresh_tail();
        // From here on the stop is unclean until the next close mark. Not synced: after a power
        // loss without it, what can be read is what is on the disk.
        out_.tail->mark(mark_flag_idle, out_.tail->last_index());
    }

    // C7: nobody appends to a tail that was left uncleanly; what no mark proves durable is
    // copied. A new directory gets its first segment here too.
    void start_fresh_tail() {
        const std::unique_ptr<Tail> old = std::move(out_.tail);
        Row row;
        row.id = out_.manifest.next_id++;
        std::uint64_t size = options_.max_segment_size;
        std::uint64_t copied = 0;
        if (old != nullptr) {
            const Row& lowest = lowest_unproven(*old);
            const std::uint64_t last = old->last_index();
            const std::uint64_t kept = std::clamp(durable_upto_, lowest.first_index - 1, last);
            row.first_index = kept + 1;
            row.prev_term = kept < lowest.first_index ? lowest.prev_term : term_at(*old, kept);
            copied = last - kept;
            size = room_for(*old, copied);
            keep_torn_bytes(*old);
        }
        out_.tail = Tail::begin(env_, directory_, spares_.take(size), row,
                                std::max(options_.max_entries, copied));
        if (old != nullptr) retire(*old);
        out_.tail->file()->fsync();
        env_->sync_directory(directory_);
        replace_manifest();
        for (const auto& segment : out_.segments) segment->settle();
        out_.has_tail_index = false;
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

    // Each copied piece has a mark of its own; no piece is less than an entry.
    std::uint64_t room_for(const Tail& old, std::uint64_t entries) const {
        std::uint64_t size = options_.max_segment_size + entries * mark_size + old.end_offset();
        for (std::size_t i = out_.segments.size() - unproven_; i < out_.segments.size(); ++i)
            size += out_.segments[i]->row().end_offset;
        return entries == 0 ? options_.max_segment_size : size;
    }

    // Copies what is above `kept` into the fresh tail, and seals what is not.
    void retire(Tail& old) {
        Tail& fresh = *out_.tail;
        const std::uint64_t kept = fresh.last_index();
        const std::uint64_t last = old.last_index();
        while (fresh.last_index() < last) {
            const std::uint64_t next = fresh.last_index() + 1;
            fresh.append(next < old.first_index()
                             ? unproven_segment_of(next).read(next, last + 1, copy_bytes)
                             : old.read(next, last + 1, copy_bytes),
                         kept);
        }
        out_.report.copied_entries = last - kept;
        // What is wholly above `kept` loses its row; its file is an orphan then.
        for (; unproven_ > 0 && out_.segments.back()->first_index() > kept; --unproven_)
            out_.segments.pop_back();
        if (kept >= old.first_index()) {
            out_.segments.push_back(old.seal());
            ++unproven_;
        }
        if (unproven_ > 0 && kept < out_.segments.back()->last_index())
            out_.segments.back()->cut(kept);
        for (std::size_t i = out_.segments.size() - unproven_; i < out_.segments.size(); ++i) {
            const Segment& segment = *out_.segments[i];
            write_index(*env_, segment.index_file(), segment.row(), *segment.index());
        }
    }

    void keep_torn_bytes(const Tail& old) {
        if (torn_bytes_ == 0) return;
        Bytes bytes(static_cast<std::size_t>(torn_bytes_));
        bytes.resize(old.file()->pread(old.end_offset(), MutableView(bytes)));
        const std::string folder = join(directory_, "lost+found");
        env_->make_directory(folder);
        const std::string name = std::to_string(old.row().id) + "-" +
                                 std::to_string(old.row().version) + "-" +
                                 std::to_string(old.end_offset()) + ".torn";
        env_->replace_file(join(folder, name), View(bytes), false);
    }

    void replace_manifest() {
        Manifest& manifest = out_.manifest;
        ++manifest.generation;
        manifest.rows.clear();
        for (const auto& segment : out_.segments) manifest.rows.push_back(segment->row());
        manifest.rows.push_back(out_.tail->row());
        env_->replace_file(manifest_path(directory_), View(encode_manifest(manifest)));
    }

    bool is_wanted(const FileName& file) const {
        if (file.role == FileRole::other || file.role == FileRole::manifest) return true;
        if (file.role == FileRole::leftover) return false;
        const auto& rows = out_.manifest.rows;
        const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& each) {
            return each.id == file.id && each.version == file.version;
        });
        if (row == rows.end()) return false;
        return file.role == FileRole::segment || row->sealed || out_.has_tail_index;
    }

    // F4: leftovers from before a commit point. Names that are not ours stay.
    void remove_orphans() {
        for (const std::string& name : names_) {
            if (is_wanted(parse_name(name))) continue;
            out_.report.orphans.push_back(name);
            const std::string path = join(directory_, name);
            if (!options_.read_only && env_->exists(path)) env_->unlink(path);
        }
    }

    std::shared_ptr<Env> env_;
    const std::string& directory_;
    const LogOptions& options_;
    Spares& spares_;
    std::vector<std::string> names_;
    std::vector<std::shared_ptr<Segment>> rebuilt_;
    std::set<std::uint64_t> proven_;       // ids that the durable manifest calls sealed
    std::map<std::uint64_t, Scan> scans_;  // of segments that only a pending one does
    std::size_t unproven_ = 0;             // so many of the last segments are such
    std::uint64_t durable_upto_ = 0;
    std::uint64_t torn_bytes_ = 0;
    Recovered out_;
};

}  // namespace

Recovered recover(const std::shared_ptr<Env>& env, const std::string& directory,
                  const LogOptions& options, Spares& spares) {
    const auto begun = std::chrono::steady_clock::now();
    Recovered out = Recovery(env, directory, options, spares).run();
    out.report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    return out;
}

}  // namespace copycat
