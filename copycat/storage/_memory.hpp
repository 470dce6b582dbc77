// Counts what this thread was refused of the interpreter's allocator. The counts tell an absurd
// request, which every machine refuses, from a shortage of this one (docs/decisions/0022).
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace copycat {

// No process of a 64-bit Linux is given so much address space unless it asks for that by name.
inline constexpr std::size_t IMPOSSIBLE = std::size_t{1} << 48;

struct Refusals {
    std::uint64_t possible = 0;
    std::uint64_t impossible = 0;
};

inline thread_local Refusals refusals;
inline PyMemAllocatorEx inner_allocator;

inline void* counted(void* got, std::size_t size) {
    if (got == nullptr) {
        ++(size >= IMPOSSIBLE ? refusals.impossible : refusals.possible);
    }
    return got;
}

inline void* counting_malloc(void* context, std::size_t size) {
    return counted(inner_allocator.malloc(context, size), size);
}

inline void* counting_calloc(void* context, std::size_t count, std::size_t size) {
    const bool is_beyond = size != 0 && count > SIZE_MAX / size;
    return counted(inner_allocator.calloc(context, count, size),
                   is_beyond ? SIZE_MAX : count * size);
}

inline void* counting_realloc(void* context, void* pointer, std::size_t size) {
    return counted(inner_allocator.realloc(context, pointer, size), size);
}

// Once a process, with the GIL. Blocks above 512 bytes of the other two domains come from the
// raw one, so one hook is enough and small blocks cost nothing. The context stays the inner
// one's: a thread without the GIL that allocates meanwhile may see a mixture of both.
inline void watch_allocations() {
    static bool is_watching = false;
    if (is_watching) {
        return;
    }
    is_watching = true;
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &inner_allocator);
    PyMemAllocatorEx counting{inner_allocator.ctx, counting_malloc, counting_calloc,
                              counting_realloc, inner_allocator.free};
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &counting);
}

}  // namespace copycat
