#include "sync_ticket.hpp"

namespace copycat {

void SyncTicket::run() {
    const std::lock_guard lock(mutex_);
    if (is_done_) return;
    log_status_->check();
    const std::shared_ptr<Lock> directory_lock = lock_.lock();
    if (directory_lock == nullptr)
        throw std::invalid_argument("the log " + directory_ + " is closed");
    try {
        work();
    } catch (const ResourceError&) {
        throw;
    } catch (const IoError& error) {
        log_status_->poison(error);
        throw;
    }
    is_done_ = true;
    log_status_->synced();
}

void SyncTicket::work() {
    for (const auto& sync : older_) sync->run();
    log_status_->check();  // an append may have failed meanwhile, and the log may be closed
    for (const Seal& seal : seals_) write_index(*env_, seal.path, seal.row, *seal.index);
    // The header, size and name of a new file are durable before a manifest names the file, so
    // that recovery can check it by its header (F3). The same sync covers its first data.
    if (tail_ != nullptr) tail_->run();
    if (!manifest_) return;
    handle_->sync();
    log_status_->check();
    replace_manifest(*env_, manifest_path(directory_), *handle_, temp_manifest_, View(*manifest_));
    obsolete_files_->add(std::move(excess_));
}

}  // namespace copycat
