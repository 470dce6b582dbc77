#include "fault_disk.hpp"

#include <algorithm>
#include <cstring>

namespace copycat {
namespace {

// Decides whether shorten() reached the platter; if not, the file is as long as before.
void resolve_cut(Node& node, bool is_kept) {
    if (node.cut.empty()) return;
    if (is_kept) {
        node.durable_size = node.image->size();
    } else {
        auto image = std::make_shared<Bytes>(*node.image);
        image->insert(image->end(), node.cut.begin(), node.cut.end());
        node.image = std::move(image);
    }
    node.cut.clear();
}

// Makes `image` the content of the file, all of it durable.
void set_durable_image(Node& node, std::shared_ptr<Bytes> image) {
    // A write of which no byte was kept never happened: the log may write there again after it
    // was opened, since it cannot know of that write.
    for (const Unsynced& write : node.unsynced) {
        const std::uint64_t end = write.offset + write.length;
        const auto at = [&](std::uint64_t offset) {
            return image->begin() +
                   static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(offset, image->size()));
        };
        const auto is_zero = [](std::uint8_t byte) { return byte == 0; };
        if (std::all_of(at(write.offset), at(end), is_zero))
            node.written.remove(write.offset, end);
    }
    node.image = std::move(image);
    node.durable_size = node.image->size();
    node.unsynced.clear();
}

// What is left of one file after a power loss. A `bias` of 0 keeps nothing that was not synced, 4
// keeps everything; with 1 to 3 each write is kept, dropped or torn independently.
void tear(Node& node, SeededRandom& rng, std::uint64_t bias, bool garbage) {
    if (node.is_durable()) return;
    if (!node.cut.empty()) resolve_cut(node, rng.below(4) < bias);
    auto image = std::make_shared<Bytes>(*node.image);  // old mappings keep the old bytes
    std::vector<std::uint64_t> sizes = {node.durable_size, image->size()};
    const auto wipe = [&](std::uint64_t begin, std::uint64_t end) {
        std::memset(image->data() + begin, 0, end - begin);
        if (!garbage || rng.below(2) == 0) return;
        for (std::uint64_t at = begin; at < end; ++at)
            (*image)[at] = static_cast<std::uint8_t>(rng.draw());
    };
    for (const Unsynced& write : node.unsynced) {
        const std::uint64_t end = write.offset + write.length;
        sizes.push_back(std::max(end, node.durable_size));
        if (rng.below(4) < bias) continue;
        const std::uint64_t way = bias == 0 ? 0 : rng.below(16);
        if (way < 6) {
            wipe(write.offset, end);
        } else if (way < 8) {  // a prefix of any length: sectors are not atomic either
            wipe(write.offset + rng.below(write.length), end);
        } else {
            const std::uint64_t block = way < 14 ? 512 : 4096;
            for (std::uint64_t at = write.offset; at < end;) {
                const std::uint64_t next = std::min(end, (at / block + 1) * block);
                if (rng.below(2) == 0) wipe(at, next);
                at = next;
            }
        }
    }
    // a file that grew may get any size in between: allocation is not atomic
    const std::uint64_t grown = image->size() - node.durable_size;
    sizes.push_back(node.durable_size + rng.below(grown + 1));
    const std::size_t pick = bias == 0 ? 0 : bias == 4 ? 1 : rng.below(sizes.size());
    image->resize(sizes[pick]);
    set_durable_image(node, std::move(image));
}

// As tear(), but bits decide: one for shorten(), one for the size of the file, and one for each
// write, in this order.
template <typename Keeps>
void keep_some(Node& node, Keeps keeps) {
    if (!node.cut.empty()) resolve_cut(node, keeps());
    auto image = std::make_shared<Bytes>(*node.image);
    std::uint64_t size = node.durable_size;
    if (node.has_grown() && keeps()) size = image->size();
    for (const Unsynced& write : node.unsynced) {
        const std::uint64_t end = write.offset + write.length;
        if (keeps())
            size = std::max(size, end);
        else
            std::memset(image->data() + write.offset, 0, write.length);
    }
    image->resize(size);
    set_durable_image(node, std::move(image));
}

std::uint64_t mixed(std::uint64_t hash, std::uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    return hash ^ (hash >> 29);
}

std::uint64_t mixed(std::uint64_t hash, View bytes) {
    hash = mixed(hash, bytes.size());
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + i, sizeof word);
        hash = mixed(hash, word);
    }
    for (; i < bytes.size(); ++i) hash = mixed(hash, bytes[i]);
    return hash;
}

std::uint64_t mixed(std::uint64_t hash, const std::string& text) {
    return mixed(hash, View(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

}  // namespace

void Node::shorten(std::uint64_t size) {
    if (size >= image->size()) return;
    std::erase_if(unsynced, [size](const Unsynced& write) { return write.offset >= size; });
    for (Unsynced& write : unsynced) write.length = std::min(write.length, size - write.offset);
    if (image.use_count() > 1) image = std::make_shared<Bytes>(*image);  // mapped: move on
    const auto from = image->begin() + static_cast<std::ptrdiff_t>(size);
    cut.insert(cut.begin(), from, image->end());
    image->resize(size);
}

void Names::apply(const DirectoryChange& made) {
    switch (made.change) {
        case Change::create:
            files[made.name] = made.node;
            break;
        case Change::rename:
            if (made.node == nullptr) return move_directory(made.name, made.to);
            files.erase(made.name);
            files[made.to] = made.node;
            break;
        case Change::unlink:
            files.erase(made.name);
            break;
        case Change::mkdir:
            directories.insert(made.name);
            break;
    }
}

void Names::move_directory(const std::string& from, const std::string& to) {
    const auto is_inside = [&](const std::string& path) { return path.starts_with(from + "/"); };
    std::map<std::string, NodePtr> moved;
    for (auto& [path, node] : files)
        moved[is_inside(path) ? to + path.substr(from.size()) : path] = node;
    files = std::move(moved);
    std::set<std::string> places;
    for (const std::string& path : directories)
        places.insert(path == from || is_inside(path) ? to + path.substr(from.size()) : path);
    directories = std::move(places);
}

void Names::drop_orphans() {
    std::erase_if(directories, [this](const std::string& path) {
        for (std::string at = path; at != "/" && at != "."; at = parent_of(at))
            if (!directories.contains(at)) return true;
        return false;
    });
    std::erase_if(files,
                  [this](const auto& file) { return !has_directory(parent_of(file.first)); });
}

bool Disk::step(const char* operation, const std::string& path, bool mutating) {
    check_power(operation, path);
    const int number = take_fault(operation);
    const std::string verb = operation;
    const bool is_write = verb == "write" || verb == "zero_fill" || verb == "sync";
    if (number > 0 && is_write) throw_write_error(operation, path, number);
    if (number > 0) throw_io(operation, path, number);
    if (mutating) {
        ++operations;
        if (left_until_stop != never) --left_until_stop;
    }
    return number == short_write;
}

int Disk::take_fault(const std::string& operation) {
    int number = 0;
    for (Fault& fault : faults)
        if (fault.operation == operation && --fault.left == 0) number = fault.number;
    std::erase_if(faults, [](const Fault& fault) { return fault.left == 0; });
    return number;
}

void Disk::sync_directory(const std::string& path) {
    step("sync_directory", path);
    for (const DirectoryChange& made : changes)
        if (made.directory == path) platter.apply(made);
    std::erase_if(changes, [&](const DirectoryChange& made) { return made.directory == path; });
}

// Power loss: each directory change and each write that was not synced is kept or lost, in any
// combination.
void Disk::crash(std::uint64_t seed, bool garbage) {
    SeededRandom fate(seed);
    const std::uint64_t bias = fate.below(5);
    for (const DirectoryChange& made : changes)
        if (fate.below(4) < bias) platter.apply(made);
    wake();
    std::set<const Node*> torn;
    for (const auto& [path, node] : now.files)
        if (torn.insert(node.get()).second) tear(*node, fate, bias, garbage);
}

std::vector<NodePtr> Disk::unsynced_files() const {
    std::vector<NodePtr> unsynced_nodes;
    std::set<const Node*> seen;
    const auto take = [&](const NodePtr& node) {
        if (node && !node->is_durable() && seen.insert(node.get()).second)
            unsynced_nodes.push_back(node);
    };
    for (const auto& [path, node] : platter.files) take(node);
    for (const DirectoryChange& made : changes) take(made.node);
    return unsynced_nodes;
}

std::uint64_t Disk::unsynced() const {
    std::uint64_t count = changes.size();
    for (const NodePtr& node : unsynced_files())
        count += node->unsynced.size() + (node->has_grown() ? 1 : 0) + (node->cut.empty() ? 0 : 1);
    return count;
}

void Disk::crash_keeping(std::uint64_t kept_bits) {
    std::uint64_t number = 0;
    const auto keeps = [&] {
        return ((kept_bits >> std::min<std::uint64_t>(number++, 63)) & 1) != 0;
    };
    const std::vector<NodePtr> files = unsynced_files();
    for (const DirectoryChange& made : changes)
        if (keeps()) platter.apply(made);
    for (const NodePtr& node : files) keep_some(*node, keeps);
    wake();
}

void Disk::wake() {
    changes.clear();
    platter.drop_orphans();
    now = platter;
    faults.clear();
    left_until_stop = never;
    ++epoch;
    locks.clear();
}

std::uint64_t Disk::digest() const {
    std::uint64_t hash = 0;
    for (const std::string& path : now.directories) hash = mixed(hash, path);
    for (const auto& [path, node] : now.files) hash = mixed(mixed(hash, path), View(*node->image));
    return hash;
}

// A copy of the disk without open handles and locks.
std::shared_ptr<Disk> Disk::clone() const {
    auto copy = std::make_shared<Disk>(0);
    std::map<const Node*, NodePtr> nodes;
    const auto copied = [&nodes](const NodePtr& node) {
        if (!node) return NodePtr();
        NodePtr& duplicate = nodes[node.get()];
        if (!duplicate) {
            duplicate = std::make_shared<Node>(*node);
            duplicate->image = std::make_shared<Bytes>(*node->image);
        }
        return duplicate;
    };
    copy->rng = rng;
    copy->now = now;
    copy->platter = platter;
    copy->changes = changes;
    copy->faults = faults;
    copy->epoch = epoch + 1;
    copy->sequence = sequence;
    copy->operations = operations;
    copy->left_until_stop = left_until_stop;
    copy->free_space = free_space;
    for (auto& [path, node] : copy->now.files) node = copied(node);
    for (auto& [path, node] : copy->platter.files) node = copied(node);
    for (DirectoryChange& made : copy->changes) made.node = copied(made.node);
    return copy;
}

}  // namespace copycat
