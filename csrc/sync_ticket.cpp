#include "sync_ticket.hpp"

namespace copycat {

void Health::check() const {
    if (!is_poisoned()) return;
    const std::lock_guard lock(mutex_);
    throw *cause_;
}

void Health::poison(const IoError& cause) {
    const std::lock_guard lock(mutex_);
    if (cause_) return;
    cause_.emplace(std::string("the log was closed by an earlier failure: ") + cause.what(),
                   cause.path, cause.number);
    is_poisoned_.store(true, std::memory_order_release);
}

void SyncTicket::run() {
    const std::lock_guard lock(mutex_);
    if (is_done_) return;
    health_->check();
    try {
        work();
    } catch (const IoError& error) {
        health_->poison(error);
        throw;
    }
    is_done_ = true;
    health_->synced();
}

void SyncTicket::work() {
    for (const auto& sync : older_) sync->run();
    for (const Seal& seal : seals_) write_index(*env_, seal.path, seal.row, *seal.index);
    // The new file's header, size and name are durable before a manifest names it, so that
    // what a manifest names can be held to its header (F3). Its first data comes with it.
    if (tail_ != nullptr) tail_->run();
    if (!manifest_) return;
    env_->sync_directory(directory_);
    env_->replace_file(manifest_path(directory_), View(*manifest_));
    for (const std::string& path : doomed_)
        if (env_->exists(path)) env_->unlink(path);
}

}  // namespace copycat
