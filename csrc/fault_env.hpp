// A disk in memory with a page cache, for tests and the simulator. At a power loss it does to
// unsynced bytes whatever a real disk may do to them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "env.hpp"

namespace copycat {

class FaultEnv : public Env {
public:
    // Power loss: each unsynced write, create, rename and unlink is kept, dropped or torn, as
    // the seed decides; open handles, locks and unfinished syncs become invalid. The power is back
    // afterwards. Lost bytes of a write read as zeros; with `garbage`, some read as random bytes.
    virtual void crash(std::uint64_t seed, bool garbage = false) = 0;
    // How many changes are not durable: changes of directories and sizes, and writes.
    virtual std::uint64_t unsynced() const = 0;
    // Power loss that keeps the nth of these changes if bit n of `kept_bits` is set, and else
    // drops it; bit 63 is for all changes from the 63rd on.
    virtual void crash_keeping(std::uint64_t kept_bits) = 0;
    // SIGKILL: the page cache is kept; handles, locks and unfinished syncs become invalid.
    virtual void crash_process() = 0;
    // The nth matching operation from now (1 = the next) fails. Operations: open create read map
    // list lock write zero_fill allocate shorten sync rename unlink mkdir open_directory
    // sync_directory. Errors: an errno's name, or SHORT (half of the bytes are written, then
    // EIO). The next crash() deletes all faults.
    virtual void fail(const std::string& operation, std::uint64_t nth,
                      const std::string& error) = 0;
    // The nth sync of a file from now on hangs until let_go(); other syncs do not hang.
    // await_blocked() waits until that sync hangs.
    virtual void hold_sync(std::uint64_t nth) = 0;
    virtual void await_blocked() = 0;
    virtual void let_go() = 0;
    // Xors a byte with `mask`, in the page cache and on the platter.
    virtual void corrupt(const std::string& path, std::uint64_t offset, std::uint8_t mask) = 0;
    virtual std::uint64_t size(const std::string& path) = 0;
    // How many mutating operations there were, syncs included.
    virtual std::uint64_t operations() const = 0;
    // After `more` further mutating operations the power is off until crash(): every operation is
    // an IoError(EIO).
    virtual void stop_after(std::uint64_t more) = 0;
    // How many mutating operations are left until then; without stop_after(), the largest number.
    virtual std::uint64_t operations_left() const = 0;
    // A hash of all names and bytes: disks with equal digests are recovered alike.
    virtual std::uint64_t digest() const = 0;
    virtual void set_free_space(std::uint64_t bytes) = 0;
    // A deep copy without open handles and locks, so that one state can crash in many ways.
    virtual std::shared_ptr<FaultEnv> clone() const = 0;
};

std::shared_ptr<FaultEnv> make_fault_env(std::uint64_t seed);

}  // namespace copycat
