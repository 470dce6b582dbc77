#include "fault_env.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "fault_disk.hpp"

namespace copycat {
namespace {

using DiskPtr = std::shared_ptr<Disk>;
using Guard = std::lock_guard<std::mutex>;

int error_number(const std::string& name) {
    static const std::map<std::string, int> numbers = {
        {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
        {"EACCES", EACCES}, {"EMFILE", EMFILE}, {"ENOENT", ENOENT}, {"ENFILE", ENFILE},
        {"ENOMEM", ENOMEM}, {"EFBIG", EFBIG},   {"ENOLCK", ENOLCK}, {"SHORT", short_write}};
    const auto entry = numbers.find(name);
    if (entry == numbers.end()) throw std::invalid_argument("no error is named " + name);
    return entry->second;
}

class FaultFile final : public File {
public:
    FaultFile(DiskPtr disk, NodePtr node, std::string path, bool writable)
        : disk_(std::move(disk)),
          node_(std::move(node)),
          path_(std::move(path)),
          epoch_(disk_->epoch),
          writable_(writable) {}

    const std::string& path() const override { return path_; }
    void renamed(std::string&& path) override { path_ = std::move(path); }

    std::uint64_t size() const override {
        const Guard guard(disk_->mutex);
        check("stat");
        return node_->image->size();
    }

    void allocate(std::uint64_t length) override {
        const Guard guard(disk_->mutex);
        check_writable("allocate");
        disk_->step("allocate", path_);
        node_->grow(length);
    }

    void zero_fill(std::uint64_t offset, std::uint64_t length) override {
        const Guard guard(disk_->mutex);
        check_writable("zero_fill");
        refuse_overwrite(offset, length);
        disk_->step("zero_fill", path_);
        node_->grow(offset + length);
    }

    void pwrite(std::uint64_t offset, View bytes) override {
        if (bytes.empty()) return;
        const Guard guard(disk_->mutex);
        check_writable("write");
        refuse_overwrite(offset, bytes.size());
        const bool cut = disk_->step("write", path_);
        const View part = cut ? bytes.first(bytes.size() / 2) : bytes;
        if (!part.empty()) {
            const std::uint64_t end = offset + part.size();
            node_->grow(end);
            std::memcpy(node_->image->data() + offset, part.data(), part.size());
            node_->written.add(offset, end);
            node_->unsynced.push_back({++disk_->sequence, offset, part.size(), false});
        }
        if (cut) throw_io("write", path_, EIO, static_cast<std::int64_t>(offset));
    }

    void shorten(std::uint64_t length) override {
        const Guard guard(disk_->mutex);
        check_writable("shorten");
        if (length >= node_->image->size()) return;
        disk_->step("shorten", path_);
        node_->shorten(length);
    }

    std::size_t pread(std::uint64_t offset, MutableView into) override {
        const Guard guard(disk_->mutex);
        check("read");
        disk_->step("read", path_, false);
        const Bytes& image = *node_->image;
        if (offset >= image.size() || into.empty()) return 0;
        const std::size_t size = std::min<std::size_t>(into.size(), image.size() - offset);
        std::memcpy(into.data(), image.data() + offset, size);
        return size;
    }

    std::unique_ptr<Work> begin_sync() override {
        const Guard guard(disk_->mutex);
        check("sync");
        return std::make_unique<Sync>(std::static_pointer_cast<FaultFile>(shared_from_this()),
                                      disk_->sequence, node_->image->size());
    }

    void fsync() override { fdatasync(); }

    Block map() override {
        const Guard guard(disk_->mutex);
        check("map");
        disk_->step("map", path_, false);
        disk_->step("read", path_, false);
        const View bytes(*node_->image);
        return Block{node_->image, bytes};
    }

private:
    class Sync final : public Work {
    public:
        Sync(std::shared_ptr<FaultFile> file, std::uint64_t upto, std::uint64_t size)
            : file_(std::move(file)), upto_(upto), size_(size) {}

        void run() override {
            file_->disk_->gate.pass();
            const Guard guard(file_->disk_->mutex);
            file_->check("sync");
            Node& node = *file_->node_;
            try {
                file_->disk_->step("sync", file_->path_);
            } catch (const IoError&) {
                for (Unsynced& write : node.unsynced)
                    if (write.sequence <= upto_) write.lost = true;
                throw;
            }
            std::erase_if(node.unsynced, [this](const Unsynced& write) {
                return write.sequence <= upto_ && !write.lost;
            });
            if (size_ > node.image->size()) return;  // the file was shortened meanwhile
            if (!node.cut.empty()) node.durable_size = size_;
            node.cut.clear();
            node.durable_size = std::max(node.durable_size, size_);
        }

    private:
        std::shared_ptr<FaultFile> file_;
        std::uint64_t upto_;
        std::uint64_t size_;
    };

    void check(const char* operation) const {
        if (epoch_ != disk_->epoch)
            throw_io(std::string("handle of before a crash: ") + operation, path_, EBADF);
        disk_->check_power(operation, path_);
    }
    void check_writable(const char* operation) const {
        check(operation);
        if (!writable_) throw_io(operation, path_, EBADF);
    }
    void refuse_overwrite(std::uint64_t offset, std::uint64_t length) const {
        if (node_->written.touches(offset, offset + length))
            throw InvariantError("nothing written is ever overwritten: " + path_, path_,
                                 static_cast<std::int64_t>(offset));
    }

    DiskPtr disk_;
    NodePtr node_;
    std::string path_;
    std::uint64_t epoch_;
    bool writable_;
};

class FaultDirectory final : public Directory {
public:
    FaultDirectory(DiskPtr disk, std::string path)
        : disk_(std::move(disk)), path_(std::move(path)), epoch_(disk_->epoch) {}
    void sync() override {
        const Guard guard(disk_->mutex);
        if (epoch_ != disk_->epoch)
            throw_io("handle of before a crash: sync_directory", path_, EBADF);
        disk_->sync_directory(path_);
    }

private:
    DiskPtr disk_;
    std::string path_;
    std::uint64_t epoch_;
};

class FaultLock final : public Lock {
public:
    FaultLock(DiskPtr disk, std::string path)
        : disk_(std::move(disk)), path_(std::move(path)), epoch_(disk_->epoch) {}
    ~FaultLock() override {
        const Guard guard(disk_->mutex);
        if (epoch_ == disk_->epoch) disk_->locks.erase(path_);
    }

private:
    DiskPtr disk_;
    std::string path_;
    std::uint64_t epoch_;
};

class MemoryDisk final : public FaultEnv {
public:
    explicit MemoryDisk(DiskPtr disk) : disk_(std::move(disk)) {}

    std::shared_ptr<File> open(const std::string& path, Access access) override {
        const Guard guard(disk_->mutex);
        disk_->step("open", path, false);
        return std::make_shared<FaultFile>(disk_, disk_->find("open", path), path,
                                           access == Access::write);
    }

    std::shared_ptr<File> create(const std::string& path) override {
        const Guard guard(disk_->mutex);
        if (!disk_->now.has_directory(parent_of(path))) throw_io("create", path, ENOENT);
        if (disk_->now.files.contains(path)) throw_io("create", path, EEXIST);
        disk_->step("create", path);
        auto node = std::make_shared<Node>();
        disk_->change({Change::create, parent_of(path), path, {}, node});
        return std::make_shared<FaultFile>(disk_, std::move(node), path, true);
    }

    bool exists(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->check_power("stat", path);
        return disk_->now.files.contains(path) || disk_->now.has_directory(path);
    }

    std::vector<std::string> list(const std::string& directory) override {
        const Guard guard(disk_->mutex);
        disk_->step("list", directory, false);
        if (!disk_->now.has_directory(directory)) throw_io("list", directory, ENOENT);
        std::set<std::string> names;
        const auto add = [&](const std::string& path) {
            if (path != directory && parent_of(path) == directory)
                names.insert(path.substr(path.rfind('/') + 1));
        };
        for (const auto& [path, node] : disk_->now.files) add(path);
        for (const std::string& path : disk_->now.directories) add(path);
        return {names.begin(), names.end()};
    }

    void make_directory(const std::string& path) override {
        if (exists(path)) return;
        const std::string parent = parent_of(path);
        make_directory(parent);
        {
            const Guard guard(disk_->mutex);
            disk_->step("open_directory", parent, false);
            disk_->step("mkdir", path);
            disk_->change({Change::mkdir, parent, path, {}, nullptr});
            disk_->sync_directory(parent);
        }
    }

    void rename(const std::string& from, const std::string& to) override {
        const Guard guard(disk_->mutex);
        require(parent_of(from) == parent_of(to), "a rename stays in its directory");
        const bool is_directory = disk_->now.directories.contains(from);
        if (is_directory) require_all_synced(from, to);
        const NodePtr node = is_directory ? nullptr : disk_->find("rename", from);
        disk_->step("rename", from);
        disk_->change({Change::rename, parent_of(from), from, to, node});
    }

    void unlink(const std::string& path) override {
        const Guard guard(disk_->mutex);
        const NodePtr node = disk_->find("unlink", path);
        disk_->step("unlink", path);
        disk_->change({Change::unlink, parent_of(path), path, {}, node});
    }

    void sync_directory(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->step("open_directory", path, false);
        disk_->sync_directory(path);
    }

    std::shared_ptr<Directory> open_directory(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->step("open_directory", path, false);
        return std::make_shared<FaultDirectory>(disk_, path);
    }

    std::uint64_t disk_usage(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->check_power("stat", path);
        return disk_->find("stat", path)->image->size();
    }

    std::uint64_t free_space(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->check_power("stat", path);
        return disk_->free_space;
    }

    std::unique_ptr<Lock> lock(const std::string& path) override {
        const Guard guard(disk_->mutex);
        disk_->step("lock", path, false);
        if (!disk_->now.has_directory(parent_of(path))) throw_io("lock", path, ENOENT);
        if (!disk_->locks.insert(path).second)
            throw InUseError("directory " + parent_of(path) + " is in use", parent_of(path), 0);
        const auto node = disk_->now.files.emplace(path, std::make_shared<Node>()).first->second;
        disk_->platter.files.emplace(path, node);  // nothing reads its content
        return std::make_unique<FaultLock>(disk_, path);
    }

    void random(MutableView into) override {
        const Guard guard(disk_->mutex);
        for (std::uint8_t& byte : into) byte = static_cast<std::uint8_t>(disk_->rng.draw());
    }

    void crash(std::uint64_t seed, bool garbage) override {
        const Guard guard(disk_->mutex);
        disk_->crash(seed, garbage);
    }

    std::uint64_t unsynced() const override {
        const Guard guard(disk_->mutex);
        return disk_->unsynced();
    }

    void crash_keeping(std::uint64_t kept_bits) override {
        const Guard guard(disk_->mutex);
        disk_->crash_keeping(kept_bits);
    }

    void crash_process() override {
        const Guard guard(disk_->mutex);
        ++disk_->epoch;
        disk_->locks.clear();
    }

    void fail(const std::string& operation, std::uint64_t nth, const std::string& error) override {
        static const std::set<std::string> known = {
            "open",   "create",    "read",           "map",           "list", "lock",
            "write",  "zero_fill", "allocate",       "shorten",       "sync", "rename",
            "unlink", "mkdir",     "open_directory", "sync_directory"};
        if (!known.contains(operation))
            throw std::invalid_argument("no operation is named " + operation);
        if (nth == 0) throw std::invalid_argument("the next operation is number 1");
        if (error == "SHORT" && operation != "write")
            throw std::invalid_argument("only a write can be SHORT");
        const Guard guard(disk_->mutex);
        disk_->faults.push_back({operation, nth, error_number(error)});
    }

    void hold_sync(std::uint64_t nth) override {
        if (nth == 0) throw std::invalid_argument("the next sync is number 1");
        disk_->gate.hold(nth);
    }
    void await_blocked() override { disk_->gate.await_blocked(); }
    void let_go() override { disk_->gate.let_go(); }

    void corrupt(const std::string& path, std::uint64_t offset, std::uint8_t mask) override {
        const Guard guard(disk_->mutex);
        Bytes& image = *disk_->find("corrupt", path)->image;
        if (offset >= image.size()) throw std::out_of_range("no such byte in " + path);
        image[offset] ^= mask;
    }

    std::uint64_t size(const std::string& path) override {
        const Guard guard(disk_->mutex);
        return disk_->find("size", path)->image->size();
    }

    std::uint64_t operations() const override {
        const Guard guard(disk_->mutex);
        return disk_->operations;
    }

    void stop_after(std::uint64_t more) override {
        const Guard guard(disk_->mutex);
        disk_->left_until_stop = more;
    }

    std::uint64_t operations_left() const override {
        const Guard guard(disk_->mutex);
        return disk_->left_until_stop;
    }

    std::uint64_t digest() const override {
        const Guard guard(disk_->mutex);
        return disk_->digest();
    }

    void set_free_space(std::uint64_t bytes) override {
        const Guard guard(disk_->mutex);
        disk_->free_space = bytes;
    }

    std::shared_ptr<FaultEnv> clone() const override {
        const Guard guard(disk_->mutex);
        return std::make_shared<MemoryDisk>(disk_->clone());
    }

private:
    // All changes in the directory must be durable before it is renamed, since this model cannot
    // keep the rename and lose such a change.
    void require_all_synced(const std::string& from, const std::string& to) const {
        if (disk_->now.files.contains(to) || disk_->now.directories.contains(to))
            throw_io("rename", to, EEXIST);
        for (const DirectoryChange& made : disk_->changes)
            require(made.directory != from && !made.directory.starts_with(from + "/"),
                    "a directory is renamed whose changes no sync made durable");
    }

    DiskPtr disk_;
};

}  // namespace

std::shared_ptr<FaultEnv> make_fault_env(std::uint64_t seed) {
    return std::make_shared<MemoryDisk>(std::make_shared<Disk>(seed));
}

}  // namespace copycat
