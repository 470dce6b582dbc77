// A sliding view of a file, read with pread so that a media error is an errno (F14).
#pragma once

#include <algorithm>
#include <cstdint>

#include "env.hpp"

namespace copycat {

inline constexpr std::size_t window_bytes = std::size_t{1} << 20;

class Window {
public:
    explicit Window(File& file) : file_(file) {}

    // `size` bytes at `offset`, good until the next call; shorter only at the end of the file.
    View at(std::uint64_t offset, std::size_t size) {
        if (offset < base_ || offset + size > base_ + filled_) fill(offset, size);
        const std::size_t skip = static_cast<std::size_t>(offset - base_);
        if (skip >= filled_) return {};
        return View(buffer_).subspan(skip, std::min(size, filled_ - skip));
    }

private:
    void fill(std::uint64_t offset, std::size_t size) {
        buffer_.resize(std::max(size, window_bytes));
        base_ = offset;
        filled_ = file_.pread(offset, MutableView(buffer_));
    }

    File& file_;
    Bytes buffer_;
    std::uint64_t base_ = 0;
    std::size_t filled_ = 0;
};

}  // namespace copycat
