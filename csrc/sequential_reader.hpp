// Reads one file in order with pread, so that a media error is an errno (F14). `ReadAhead` is for
// single reads, of up to 32 KiB; a SequentialReader reads up to 256 KiB at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "env.hpp"
#include "throttle.hpp"

namespace copycat {

// The most that is read at once; the first read is small, and each further one twice as large.
inline constexpr std::size_t read_ahead_bytes_max = std::size_t{256} << 10;

class SequentialReader {
public:
    // throttle: pauses after each read; null if somebody waits for the result.
    explicit SequentialReader(File& file, RewriteThrottle* throttle = nullptr)
        : file_(file), throttle_(throttle) {}

    // Returns `size` bytes at `offset`, valid until the next call; fewer only at the end of the
    // file.
    View at(std::uint64_t offset, std::size_t size) {
        if (offset < base_ || offset + size > base_ + block_.bytes.size()) fill(offset, size);
        const std::size_t skip = static_cast<std::size_t>(offset - base_);
        if (skip >= block_.bytes.size()) return {};
        return block_.bytes.subspan(skip, std::min(size, block_.bytes.size() - skip));
    }

    // Reads bytes of entry `index`, which the CorruptError of a packed segment then names.
    View at(std::uint64_t offset, std::size_t size, std::uint64_t index) {
        try {
            return at(offset, size);
        } catch (const CorruptError& error) {
            throw CorruptError("entry " + std::to_string(index) + " is corrupt: " + error.what(),
                               error.path, error.offset, index);
        }
    }

private:
    static constexpr std::size_t first_bytes = 4096;

    void fill(std::uint64_t offset, std::size_t size) {
        const bool is_sequential = offset >= base_ && offset <= base_ + block_.bytes.size();
        ahead_ = is_sequential ? std::min(ahead_ * 2, read_ahead_bytes_max) : first_bytes;
        block_ = Block{};  // frees its memory for the next one
        base_ = offset;
        try {
            block_ = file_.read(offset, std::max(size, ahead_));
        } catch (const Error&) {  // an error in the bytes ahead does not concern this read
            if (size >= ahead_) throw;
            ahead_ = first_bytes / 2;  // so that the next reads do not reach the damage again
            block_ = file_.read(offset, size);
        }
        if (throttle_ != nullptr) throttle_->moved();
    }

    File& file_;
    RewriteThrottle* throttle_;
    Block block_;
    std::uint64_t base_ = 0;
    std::size_t ahead_ = first_bytes / 2;
};

}  // namespace copycat
