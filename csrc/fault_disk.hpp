// The disk of a FaultEnv: files, names, and which of their changes are durable.
#pragma once

#include <condition_variable>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "env.hpp"

namespace copycat {

inline constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
inline constexpr int short_write = -1;

// splitmix64: equal seeds give equal crashes on every machine.
class SeededRandom {
public:
    explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
    std::uint64_t draw() {
        state_ += 0x9e3779b97f4a7c15;
        std::uint64_t mixed = state_;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
        return mixed ^ (mixed >> 31);
    }
    std::uint64_t below(std::uint64_t limit) { return draw() % limit; }

private:
    std::uint64_t state_;
};

// Which bytes of a file were written, apart from zero_fill. Neighbouring ranges are merged.
class Ranges {
public:
    bool touches(std::uint64_t begin, std::uint64_t end) const {
        auto next = ranges_.lower_bound(end);
        return next != ranges_.begin() && std::prev(next)->second > begin;
    }
    void add(std::uint64_t begin, std::uint64_t end) {
        auto next = ranges_.lower_bound(end);
        if (next != ranges_.end() && next->first == end) {
            end = next->second;
            next = ranges_.erase(next);
        }
        if (next != ranges_.begin() && std::prev(next)->second == begin)
            std::prev(next)->second = end;
        else
            ranges_.emplace(begin, end);
    }
    // [begin, end) must have been added before, perhaps as part of a longer range.
    void remove(std::uint64_t begin, std::uint64_t end) {
        const auto around = std::prev(ranges_.upper_bound(begin));
        const auto [first, last] = *around;
        ranges_.erase(around);
        if (first < begin) ranges_.emplace(first, begin);
        if (end < last) ranges_.emplace(end, last);
    }

private:
    std::map<std::uint64_t, std::uint64_t> ranges_;
};

struct Unsynced {
    std::uint64_t sequence;
    std::uint64_t offset;
    std::uint64_t length;
    bool lost;  // a failed sync marked its pages as clean: no later sync writes them
};

// The content of a file. One image is enough for page cache and platter: written bytes are never
// overwritten, so where a write is not synced the platter has zeros.
struct Node {
    std::shared_ptr<Bytes> image = std::make_shared<Bytes>();
    std::uint64_t durable_size = 0;
    std::vector<Unsynced> unsynced;
    Ranges written;
    // Bytes that shorten() cut from the end of the image, until a sync makes that durable.
    Bytes cut;

    void shorten(std::uint64_t size);
    void grow(std::uint64_t size) {
        if (size <= image->size()) return;
        if (image.use_count() > 1)
            image = std::make_shared<Bytes>(*image);  // a mapping keeps the old image
        image->resize(size);
    }
    bool has_grown() const { return image->size() > durable_size; }
    bool is_durable() const { return unsynced.empty() && !has_grown() && cut.empty(); }
};
using NodePtr = std::shared_ptr<Node>;

enum class Change { create, rename, unlink, mkdir };

// A change of a directory that is not durable yet.
struct DirectoryChange {
    Change change;
    std::string directory;
    std::string name;
    std::string to;
    NodePtr node;  // null for a directory
};

struct Names {
    std::map<std::string, NodePtr> files;
    std::set<std::string> directories;

    void apply(const DirectoryChange& made);
    bool has_directory(const std::string& path) const {
        return path == "/" || path == "." || directories.contains(path);
    }
    // Moves a directory with everything in it.
    void move_directory(const std::string& from, const std::string& to);
    // Deletes files and directories whose parent directory was lost.
    void drop_orphans();
};

// Makes a sync wait until a test lets it continue.
class Gate {
public:
    void hold(std::uint64_t nth) {
        const std::lock_guard lock(mutex_);
        left_ = nth;
    }
    void pass() {
        std::unique_lock lock(mutex_);
        if (left_ == 0 || --left_ > 0) return;
        is_blocked_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !is_blocked_; });
    }
    void await_blocked() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return is_blocked_; });
    }
    void let_go() {
        const std::lock_guard lock(mutex_);
        left_ = 0;
        is_blocked_ = false;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::uint64_t left_ = 0;
    bool is_blocked_ = false;
};

struct Fault {
    std::string operation;
    std::uint64_t left;
    int number;
};

// The disk, which all handles share. `epoch` grows at each crash, which invalidates the handles.
struct Disk {
    explicit Disk(std::uint64_t seed) : rng(seed) {}

    std::mutex mutex;
    Gate gate;
    SeededRandom rng;
    Names now;
    Names platter;
    std::vector<DirectoryChange> changes;
    std::set<std::string> locks;
    std::vector<Fault> faults;
    std::uint64_t epoch = 0;
    std::uint64_t sequence = 0;
    std::uint64_t operations = 0;
    std::uint64_t left_until_stop = never;
    std::uint64_t free_space = std::uint64_t{1} << 40;

    void check_power(const char* operation, const std::string& path) const {
        if (left_until_stop == 0) throw_io(std::string("power is off: ") + operation, path, EIO);
    }
    // Counts a mutating operation, and throws a fault that is due. True: write only a part.
    bool step(const char* operation, const std::string& path, bool mutating = true);
    // The errno of the fault that is due now; short_write; or 0.
    int take_fault(const std::string& operation);
    void sync_directory(const std::string& path);
    void crash(std::uint64_t seed, bool garbage);
    std::uint64_t unsynced() const;
    void crash_keeping(std::uint64_t kept_bits);
    std::uint64_t digest() const;
    std::shared_ptr<Disk> clone() const;
    // Files of which something is not durable, each once, whatever their names.
    std::vector<NodePtr> unsynced_files() const;
    // Ends a crash, after it was decided which changes are kept: handles are invalid, power is
    // back.
    void wake();
    NodePtr find(const char* operation, const std::string& path) const {
        const auto entry = now.files.find(path);
        if (entry == now.files.end()) throw_io(operation, path, ENOENT);
        return entry->second;
    }
    void change(DirectoryChange made) {
        now.apply(made);
        changes.push_back(std::move(made));
    }
};

}  // namespace copycat
