#include "fault_disk.hpp"

#include <algorithm>
#include <cstring>

namespace copycat {
namespace {

// What is left of one file after a power loss. `bias` of 0 keeps nothing that was not synced,
// 4 keeps all of it; between them each write is kept, dropped or torn for itself.
void tear(Node& node, Dice& dice, std::uint64_t bias) {
    if (node.unsynced.empty() && node.durable_size == node.image->size()) return;
    auto image = std::make_shared<Bytes>(*node.image);  // old mappings keep the old bytes
    std::vector<std::uint64_t> sizes = {node.durable_size, image->size()};
    const auto wipe = [&image](std::uint64_t begin, std::uint64_t end) {
        std::memset(image->data() + begin, 0, end - begin);
    };
    for (const Unsynced& write : node.unsynced) {
        const std::uint64_t end = write.offset + write.length;
        sizes.push_back(std::max(end, node.durable_size));
        if (dice.below(4) < bias) continue;
        const std::uint64_t way = bias == 0 ? 0 : dice.below(16);
        if (way < 6) {
            wipe(write.offset, end);
        } else if (way < 8) {  // a prefix, cut anywhere: sectors are not atomic either
            wipe(write.offset + dice.below(write.length), end);
        } else {
            const std::uint64_t block = way < 14 ? 512 : 4096;
            for (std::uint64_t at = write.offset; at < end;) {
                const std::uint64_t next = std::min(end, (at / block + 1) * block);
                if (dice.below(2) == 0) wipe(at, next);
                at = next;
            }
        }
    }
    // a file that grew may have any size between: allocation is not atomic
    const std::uint64_t grown = image->size() - node.durable_size;
    sizes.push_back(node.durable_size + dice.below(grown + 1));
    const std::size_t pick = bias == 0 ? 0 : bias == 4 ? 1 : dice.below(sizes.size());
    image->resize(sizes[pick]);
    // A write of which nothing arrived never happened: its place may be written by the next
    // life of the log, which cannot know of it.
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

}  // namespace

void Names::apply(const DirectoryChange& made) {
    switch (made.change) {
        case Change::create:
            files[made.name] = made.node;
            break;
        case Change::rename:
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

// Power loss, as far as faults.md section 2.1 allows: directory changes and writes are kept or
// lost each for itself, in any combination; what was synced stays.
void Disk::crash(std::uint64_t seed) {
    Dice fate(seed);
    const std::uint64_t bias = fate.below(5);
    for (const DirectoryChange& made : changes)
        if (fate.below(4) < bias) platter.apply(made);
    changes.clear();
    platter.drop_orphans();
    now = platter;
    std::set<const Node*> torn;
    for (const auto& [path, node] : now.files)
        if (torn.insert(node.get()).second) tear(*node, fate, bias);
    faults.clear();
    left_until_stop = never;
    ++epoch;
    locks.clear();
}

// The same disk again, with handles and locks to nobody.
std::shared_ptr<Disk> Disk::clone() const {
    auto copy = std::make_shared<Disk>(0);
    std::map<const Node*, NodePtr> nodes;
    const auto copied = [&nodes](const NodePtr& node) {
        if (!node) return NodePtr();
        NodePtr& twin = nodes[node.get()];
        if (!twin) {
            twin = std::make_shared<Node>(*node);
            twin->image = std::make_shared<Bytes>(*node->image);
        }
        return twin;
    };
    copy->dice = dice;
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
