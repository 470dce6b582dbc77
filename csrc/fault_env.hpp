// A whole disk in memory with its page cache apart: for tests and the simulator.
// What it does to unsynced bytes at a power loss is all that the model of a disk allows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "env.hpp"

namespace copycat {

class FaultEnv : public Env {
public:
    // Power loss: each unsynced write, create, rename and unlink is kept, dropped or torn by
    // seed; every open handle, lock and unfinished sync dies. The power is back afterwards.
    // What did not arrive of a write reads as zeros; with `garbage`, some of it as noise.
    virtual void crash(std::uint64_t seed, bool garbage = false) = 0;
    // How many changes no sync made durable: of directories, of sizes, and writes.
    virtual std::uint64_t unsynced() const = 0;
    // Power loss that keeps the nth of them whole if bit n of `kept_bits` is set, else drops it;
    // bit 63 stands for all from there on.
    virtual void crash_keeping(std::uint64_t kept_bits) = 0;
    // SIGKILL: the page cache survives; handles, locks and syncs die.
    virtual void crash_process() = 0;
    // The nth matching operation from now (1 = the next) fails. Operations: open create read map
    // list lock write zero_fill allocate shorten sync rename unlink mkdir open_directory
    // sync_directory. Errors: an errno's name, or SHORT (half of a write arrives, then EIO). All
    // are forgotten at the next crash().
    virtual void fail(const std::string& operation, std::uint64_t nth,
                      const std::string& error) = 0;
    // The nth sync of a file from now on hangs until let_go(); other syncs do not. await_blocked()
    // returns once it hangs.
    virtual void hold_sync(std::uint64_t nth) = 0;
    virtual void await_blocked() = 0;
    virtual void let_go() = 0;
    // Xors one byte, in cache and on the platter.
    virtual void corrupt(const std::string& path, std::uint64_t offset, std::uint8_t mask) = 0;
    virtual std::uint64_t size(const std::string& path) = 0;
    // How many mutating operations so far (syncs included).
    virtual std::uint64_t operations() const = 0;
    // `more` mutating operations from now still happen; then the power is off until crash():
    // every later operation is an IoError(EIO).
    virtual void stop_after(std::uint64_t more) = 0;
    // What is left of that; without a stop_after, the largest number.
    virtual std::uint64_t operations_left() const = 0;
    // Of all names and bytes: two disks with equal digests recover alike.
    virtual std::uint64_t digest() const = 0;
    virtual void set_free_space(std::uint64_t bytes) = 0;
    // A deep copy, with open handles and locks to nobody: to crash one state in many ways.
    virtual std::shared_ptr<FaultEnv> clone() const = 0;
};

std::shared_ptr<FaultEnv> make_fault_env(std::uint64_t seed);

}  // namespace copycat
