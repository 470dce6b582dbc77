#include "env.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "place.hpp"
#include "posix_lock.hpp"

namespace copycat {
namespace {

// The smallest step of an allocation that signals keep interrupting.
constexpr std::uint64_t least_allocation = std::uint64_t{1} << 16;

class PosixFile final : public File {
public:
    explicit PosixFile(std::string path) : path_(std::move(path)) {}
    // Takes an open descriptor. The object is made before the file is opened, so that a lack of
    // memory leaves no descriptor open.
    void take_descriptor(int number) { descriptor_.set(number); }

    const std::string& path() const override { return path_; }
    void renamed(std::string&& path) override { path_ = std::move(path); }

    std::uint64_t size() const override {
        struct stat status{};
        if (::fstat(descriptor_.get(), &status) != 0) throw_io("stat", path_, errno);
        return static_cast<std::uint64_t>(status.st_size);
    }

    void allocate(std::uint64_t length) override {
        // An allocation that a signal interrupts may have done nothing. With smaller steps there
        // is some progress between two signals, however frequent they are.
        std::uint64_t step = length;
        for (std::uint64_t done = 0; done < length;) {
            const std::uint64_t part = std::min(step, length - done);
            const int error = ::posix_fallocate(descriptor_.get(), static_cast<off_t>(done),
                                                static_cast<off_t>(part));
            if (error == EINTR)
                step = std::max(step / 2, std::min(least_allocation, length));
            else if (error != 0)
                throw_io("allocate", path_, error);
            else
                done += part;
        }
    }

    void zero_fill(std::uint64_t offset, std::uint64_t length) override {
        static const Bytes zeros(std::size_t{1} << 20);
        while (length > 0) {
            const std::size_t part =
                static_cast<std::size_t>(std::min<std::uint64_t>(length, zeros.size()));
            pwrite(offset, View(zeros).first(part));
            offset += part;
            length -= part;
        }
    }

    void pwrite(std::uint64_t offset, View bytes) override {
        while (!bytes.empty()) {
            const ssize_t written = ::pwrite(descriptor_.get(), bytes.data(), bytes.size(),
                                             static_cast<off_t>(offset));
            if (written < 0 && errno == EINTR) continue;  // nothing was written
            if (written <= 0)
                throw_write_error("write", path_, written < 0 ? errno : EIO,
                                  static_cast<std::int64_t>(offset));
            bytes = bytes.subspan(static_cast<std::size_t>(written));
            offset += static_cast<std::uint64_t>(written);
        }
    }

    void shorten(std::uint64_t length) override {
        if (length >= size()) return;
        while (::ftruncate(descriptor_.get(), static_cast<off_t>(length)) != 0)
            if (errno != EINTR) throw_io("shorten", path_, errno);
    }

    std::size_t pread(std::uint64_t offset, MutableView into) override {
        std::size_t done = 0;
        while (done < into.size()) {
            const ssize_t got = ::pread(descriptor_.get(), into.data() + done, into.size() - done,
                                        static_cast<off_t>(offset + done));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) throw_io("read", path_, errno, static_cast<std::int64_t>(offset + done));
            if (got == 0) break;
            done += static_cast<std::size_t>(got);
        }
        return done;
    }

    std::unique_ptr<Work> begin_sync() override {
        return std::make_unique<Sync>(std::static_pointer_cast<PosixFile>(shared_from_this()));
    }

    void fsync() override {
        if (::fsync(descriptor_.get()) != 0) throw_write_error("sync", path_, errno);
    }

    void write_out(std::uint64_t from, std::uint64_t to) override {
        constexpr unsigned whole =
            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
        static_cast<void>(::sync_file_range(descriptor_.get(), static_cast<off64_t>(from),
                                            static_cast<off64_t>(to - from), whole));
    }

    void drop_cache() override {
        // A hint, so an error does not matter.
        static_cast<void>(::posix_fadvise(descriptor_.get(), 0, 0, POSIX_FADV_DONTNEED));
    }

    Block map() override {
        const auto length = static_cast<std::size_t>(size());
        if (length == 0) return Block{};
        void* address = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, descriptor_.get(), 0);
        if (address == MAP_FAILED) throw_io("map", path_, errno);
        std::shared_ptr<const void> owner(address, [length](const void* mapped) {
            ::munmap(const_cast<void*>(mapped), length);
        });
        return Block{std::move(owner), View(static_cast<const std::uint8_t*>(address), length)};
    }

private:
    class Sync final : public Work {
    public:
        explicit Sync(std::shared_ptr<PosixFile> file) : file_(std::move(file)) {}
        // One try: after a failure the pages may be marked clean, so a second call would
        // report success for lost bytes (F9).
        void run() override {
            if (::fdatasync(file_->descriptor_.get()) != 0)
                throw_write_error("sync", file_->path_, errno);
        }

    private:
        std::shared_ptr<PosixFile> file_;
    };

    std::string path_;
    Descriptor descriptor_{-1};
};

class PosixDirectory final : public Directory {
public:
    PosixDirectory(const std::string& path, std::shared_ptr<const Descriptor> descriptor)
        : path_(path), descriptor_(std::move(descriptor)) {}

    void sync() override {
        if (::fsync(descriptor_->get()) == 0) return;
        if (errno == EINVAL || errno == ENOTSUP) throw SyncRefusedError("sync", path_, errno);
        throw_write_error("sync", path_, errno);
    }

private:
    std::string path_;
    std::shared_ptr<const Descriptor> descriptor_;
};

std::unique_ptr<DIR, int (*)(DIR*)> open_stream(const Place& place) {
    const int number = open_or_throw("list", place, O_RDONLY | O_DIRECTORY);
    std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(number), ::closedir);
    if (stream) return stream;
    const int error = errno;
    ::close(number);
    throw_io("list", place.path, error);
}

class PosixEnv final : public Env {
public:
    PosixEnv() = default;
    PosixEnv(std::string base, std::shared_ptr<const Descriptor> descriptor)
        : base_(std::move(base)), descriptor_(std::move(descriptor)) {}

    std::shared_ptr<Env> inside(const std::string& directory) override {
        const std::size_t end = directory.find_last_not_of('/');
        return std::make_shared<PosixEnv>(
            end == std::string::npos ? "" : directory.substr(0, end + 1),
            opened_directory(directory));
    }

    std::shared_ptr<File> open(const std::string& path, Access access) override {
        const int flags = access == Access::read ? O_RDONLY : O_RDWR;
        // O_NOATIME saves the update of the access time at each read. The system refuses it for a
        // file of another user (EPERM).
        auto file = std::make_shared<PosixFile>(path);
        const Place place = at(path);
        const int quick = open_above_streams(place, flags | O_NOATIME);
        file->take_descriptor(quick >= 0 ? quick : open_or_throw("open", place, flags));
        return file;
    }

    std::shared_ptr<File> create(const std::string& path) override {
        auto file = std::make_shared<PosixFile>(path);
        file->take_descriptor(open_or_throw("create", at(path), O_RDWR | O_CREAT | O_EXCL));
        return file;
    }

    bool exists(const std::string& path) override {
        struct stat status{};
        const Place place = at(path);
        if (::fstatat(place.directory, place.name, &status, 0) == 0) return true;
        if (errno != ENOENT && errno != ENOTDIR) throw_io("stat", path, errno);
        return false;
    }

    std::vector<std::string> list(const std::string& directory) override {
        const auto stream = open_stream(at(directory));
        std::vector<std::string> names;
        for (;;) {
            errno = 0;
            const dirent* entry = ::readdir(stream.get());
            if (entry == nullptr) break;
            const std::string name = entry->d_name;
            if (name != "." && name != "..") names.push_back(name);
        }
        if (errno != 0) throw_io("list", directory, errno);
        std::sort(names.begin(), names.end());
        return names;
    }

    void make_directory(const std::string& path) override {
        if (exists(path)) return;
        const std::string parent = parent_of(path);
        if (parent != path) make_directory(parent);
        const auto above = open_directory(
            parent);  // opened first: after that, the sync cannot fail for lack of a descriptor
        const Place place = at(path);
        if (::mkdirat(place.directory, place.name, 0700) != 0 && errno != EEXIST)
            throw_io("mkdir", path, errno);
        above->sync();
    }

    void rename(const std::string& from, const std::string& to) override {
        const Place source = at(from), target = at(to);
        if (::renameat(source.directory, source.name, target.directory, target.name) != 0)
            throw_io("rename", from, errno);
    }

    void unlink(const std::string& path) override {
        const Place place = at(path);
        if (::unlinkat(place.directory, place.name, 0) != 0) throw_io("unlink", path, errno);
    }

    void sync_directory(const std::string& path) override { open_directory(path)->sync(); }

    std::shared_ptr<Directory> open_directory(const std::string& path) override {
        const bool is_base = descriptor_ != nullptr && at(path).name == here;
        return std::make_shared<PosixDirectory>(path,
                                                is_base ? descriptor_ : opened_directory(path));
    }

    std::uint64_t disk_usage(const std::string& path) override {
        struct stat status{};
        const Place place = at(path);
        if (::fstatat(place.directory, place.name, &status, 0) != 0) throw_io("stat", path, errno);
        constexpr std::uint64_t block = 512;  // the unit of st_blocks, whatever the file system
        return static_cast<std::uint64_t>(status.st_blocks) * block;
    }

    std::uint64_t free_space(const std::string& path) override {
        struct statvfs status{};
        const Place place = at(path);
        if (place.directory == AT_FDCWD) {
            if (::statvfs(path.c_str(), &status) != 0) throw_io("stat", path, errno);
        } else {  // all files of the open directory are on one disk
            if (::fstatvfs(place.directory, &status) != 0) throw_io("stat", path, errno);
        }
        return std::uint64_t{status.f_bavail} * status.f_frsize;
    }

    void pause(std::chrono::nanoseconds time) override { std::this_thread::sleep_for(time); }

    std::unique_ptr<Lock> lock(const std::string& path) override {
        return std::make_unique<PosixLock>(at(path));
    }

    void random(MutableView into) override {
        require(into.size() <= 256, "getrandom gives up to 256 bytes at once");
        for (std::size_t done = 0; done < into.size();) {
            const ssize_t got = ::getrandom(into.data() + done, into.size() - done, 0);
            if (got < 0 && errno != EINTR) throw_io("random", "getrandom", errno);
            done += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
        }
    }

private:
    static constexpr const char* here = ".";

    Place at(const std::string& path) const {
        const std::size_t size = base_.size();
        const bool is_in = descriptor_ != nullptr && path.starts_with(base_) &&
                           (path.size() == size || path[size] == '/');
        if (!is_in) return {path, AT_FDCWD, path.c_str()};
        const std::size_t begin = path.find_first_not_of('/', size);
        const char* name = begin == std::string::npos ? here : path.c_str() + begin;
        return {path, descriptor_->get(), name};
    }

    std::shared_ptr<const Descriptor> opened_directory(const std::string& path) const {
        auto made = std::make_shared<Descriptor>(-1);
        made->set(open_or_throw("sync", at(path), O_RDONLY | O_DIRECTORY));
        return made;
    }

    std::string base_;  // without slashes at its end
    std::shared_ptr<const Descriptor> descriptor_;
};

}  // namespace

Readable probe(View mapped) {
    if (mapped.empty()) return Readable::yes;
    constexpr int populate_read = 22;  // MADV_POPULATE_READ, which older headers lack
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(mapped.data()) & ~(page - 1);
    const auto end = reinterpret_cast<std::uintptr_t>(mapped.data()) + mapped.size();
    int result;
    do {
        result = ::madvise(reinterpret_cast<void*>(begin), end - begin, populate_read);
    } while (result != 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0) return Readable::yes;
    return errno == EINVAL || errno == ENOSYS ? Readable::unknown : Readable::no;
}

std::int64_t this_process() { return ::getpid(); }

Block File::read(std::uint64_t offset, std::size_t size) {
    auto memory = std::make_shared_for_overwrite<std::uint8_t[]>(size);
    const std::size_t got = pread(offset, MutableView(memory.get(), size));
    const View bytes(memory.get(), got);
    return Block{std::move(memory), bytes};
}

Bytes Env::read_file(const std::string& path, std::uint64_t limit) {
    const auto file = open(path, Access::read);
    const std::uint64_t size = file->size();
    if (size > limit) throw IoError("read", path, EFBIG);
    Bytes bytes(static_cast<std::size_t>(size));
    bytes.resize(file->pread(0, bytes));
    return bytes;
}

void Env::replace_file(const std::string& path, View bytes, bool sync_parent) {
    const std::string temp_path = path + ".new";
    // Opened before anything is changed: the call fails as a whole or not at all.
    const auto directory = sync_parent ? open_directory(parent_of(path)) : nullptr;
    if (exists(temp_path)) unlink(temp_path);  // left by a crash before its rename
    {
        const auto file = create(temp_path);
        file->pwrite(0, bytes);
        file->fsync();
    }
    rename(temp_path, path);
    if (directory != nullptr) directory->sync();
}

void Env::discard(const std::string& path) noexcept {
    try {
        if (exists(path)) unlink(path);
    } catch (const Error&) {           // obsolete: the next open removes it (F4)
    } catch (const std::bad_alloc&) {  // the same
    }
}

void Env::remove(const std::string& path) {
    const auto directory = open_directory(parent_of(path));
    unlink(path);
    directory->sync();
}

std::string parent_of(const std::string& path) {
    const std::size_t end = path.find_last_not_of('/');
    if (end == std::string::npos) return path.empty() ? "." : "/";
    const std::size_t slash = path.find_last_of('/', end);
    if (slash == std::string::npos) return ".";
    const std::size_t last = path.find_last_not_of('/', slash);
    return last == std::string::npos ? "/" : path.substr(0, last + 1);
}

std::string join(const std::string& directory, const std::string& name) {
    if (directory.empty()) return name;
    return directory.back() == '/' ? directory + name : directory + "/" + name;
}

std::shared_ptr<Env> make_posix_env() { return std::make_shared<PosixEnv>(); }

}  // namespace copycat
