// Preloaded under a whole process (LD_PRELOAD): system calls that do less than they were asked
// for, are interrupted, or fail by count. What the log makes of them is what runs in production;
// FaultEnv has loops of its own. Driven by tests/log/short_calls.py through ctypes.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

enum Call { opening, mapping, allocating, threading, writing, syncing, calls };

std::atomic<std::uint64_t> state{0};  // of the random numbers; 0: nothing is cut
std::atomic<std::uint64_t> cuts{0};
std::atomic<std::uint64_t> interruptions{0};
std::atomic<std::int64_t> left[calls];  // until that call fails; 0: it does not
std::atomic<int> numbers[calls];
std::atomic<bool> is_full{false};

std::uint64_t draw() {
    std::uint64_t mixed = state.fetch_add(0x9e3779b97f4a7c15) + 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
}

bool is_interrupted(std::uint64_t one_in) {
    if (state == 0 || draw() % one_in != 0) return false;
    ++interruptions;
    errno = EINTR;
    return true;
}

std::size_t shorter(std::size_t size) {
    if (state == 0 || size < 2 || draw() % 2 == 0) return size;
    ++cuts;
    return 1 + static_cast<std::size_t>(draw() % (size - 1));
}

// The errno of a failure that is due now, else 0.
int due(Call call) {
    if (left[call] == 0 || left[call].fetch_sub(1) != 1) return 0;
    return numbers[call];
}

template <typename Function>
Function* next(Function*, const char* name) {
    return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

void short_calls_begin(std::uint64_t seed) { state = seed; }
std::uint64_t short_calls_cuts() { return cuts; }
std::uint64_t short_calls_interruptions() { return interruptions; }
void short_calls_fail(int call, std::int64_t nth, int number) {
    numbers[call] = number;
    left[call] = nth;
}
std::int64_t short_calls_left(int call) { return left[call]; }
void short_calls_full(bool full) { is_full = full; }

ssize_t pread(int file, void* into, std::size_t size, off_t offset) {
    static auto* const real = next(&pread, "pread");
    if (is_interrupted(8)) return -1;
    return real(file, into, shorter(size), offset);
}

ssize_t pwrite(int file, const void* bytes, std::size_t size, off_t offset) {
    static auto* const real = next(&pwrite, "pwrite");
    if (is_interrupted(8)) return -1;
    const int number = due(writing);
    if (number > 0) {
        errno = number;
        return -1;
    }
    if (number < 0 && size > 1) {  // half of it arrives, and then the disk is gone
        short_calls_fail(writing, 1, EIO);
        return real(file, bytes, size / 2, offset);
    }
    return real(file, bytes, shorter(size), offset);
}

int openat(int directory, const char* path, int flags, ...) {
    static auto* const real = next(&openat, "openat");
    va_list rest;
    va_start(rest, flags);
    const auto mode = static_cast<mode_t>((flags & O_CREAT) != 0 ? va_arg(rest, int) : 0);
    va_end(rest);
    if (is_interrupted(8)) return -1;
    if (const int number = due(opening)) {
        errno = number;
        return -1;
    }
    return real(directory, path, flags, mode);
}

int posix_fallocate(int file, off_t offset, off_t length) {
    static auto* const real = next(&posix_fallocate, "posix_fallocate");
    if (is_interrupted(3)) return EINTR;
    return real(file, offset, length);
}

int ftruncate(int file, off_t length) noexcept {
    static auto* const real = next(&ftruncate, "ftruncate");
    return is_interrupted(4) ? -1 : real(file, length);
}

int flock(int file, int operation) noexcept {
    static auto* const real = next(&flock, "flock");
    return is_interrupted(4) ? -1 : real(file, operation);
}

// A sync that does not fail is one that returns: no test here loses power, and what is in the page
// cache survives the death of a process. Waiting for the disk took most of these tests' time.
int fdatasync(int) {
    errno = due(syncing);
    return errno != 0 ? -1 : 0;
}

int fsync(int) {
    errno = due(syncing);
    return errno != 0 ? -1 : 0;
}

ssize_t getrandom(void* into, std::size_t size, unsigned flags) {
    static auto* const real = next(&getrandom, "getrandom");
    if (is_interrupted(4)) return -1;
    return real(into, shorter(size), flags);
}

void* mmap(void* address, std::size_t size, int protection, int flags, int file,
           off_t offset) noexcept {
    static auto* const real = next(&mmap, "mmap");
    if (file >= 0) {
        if (const int number = due(mapping)) {
            errno = number;
            return MAP_FAILED;
        }
    }
    return real(address, size, protection, flags, file, offset);
}

int fstatvfs(int file, struct statvfs* status) noexcept {
    static auto* const real = next(&fstatvfs, "fstatvfs");
    const int result = real(file, status);
    if (is_full) status->f_bavail = 0;
    return result;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*),
                   void* argument) noexcept {
    static auto* const real = next(&pthread_create, "pthread_create");
    if (const int number = due(threading)) return number;
    return real(thread, attributes, work, argument);
}

}  // extern "C"

void* operator new(std::size_t size) {
    if (due(allocating) != 0) throw std::bad_alloc();
    void* const got = std::malloc(std::max<std::size_t>(size, 1));
    if (got == nullptr) throw std::bad_alloc();
    return got;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
