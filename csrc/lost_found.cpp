#include "lost_found.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace copycat {
namespace {

constexpr char lost_folder[] = "lost+found";
constexpr std::string_view suffix = ".torn";
constexpr std::size_t torn_files_max = 4;

// The id of the segment that a file belongs to; ids grow.
std::uint64_t segment_of(const std::string& path) {
    const std::string name = path.substr(path.rfind('/') + 1);
    std::uint64_t id = 0;
    std::from_chars(name.data(), name.data() + name.size(), id);
    return id;
}

}  // namespace

void keep_torn_bytes(Env& env, const std::string& directory, const Row& row, File& file,
                     std::uint64_t offset, std::uint64_t size) {
    if (size == 0) return;
    Bytes bytes(static_cast<std::size_t>(size));
    bytes.resize(file.pread(offset, MutableView(bytes)));
    const std::string folder = join(directory, lost_folder);
    const std::string name = std::to_string(row.id) + "-" + std::to_string(row.version) + "-" +
                             std::to_string(offset) + std::string(suffix);
    try {
        env.make_directory(folder);
        env.replace_file(join(folder, name), View(bytes), false);
    } catch (const ResourceError&) {
        throw;
    } catch (const IoError&) {
    }
}

std::vector<std::string> torn_files(Env& env, const std::string& directory) {
    const std::string folder = join(directory, lost_folder);
    std::vector<std::string> files;
    if (!env.exists(folder)) return files;
    try {
        for (const std::string& name : env.list(folder))
            if (name.ends_with(suffix)) files.push_back(join(folder, name));
    } catch (const ResourceError&) {
        throw;
    } catch (const IoError&) {  // a directory that this process may not read
    }
    std::stable_sort(files.begin(), files.end(), [](const auto& one, const auto& other) {
        return segment_of(one) < segment_of(other);
    });
    return files;
}

std::vector<std::string> newest_torn_files(Env& env, const std::string& directory) {
    std::vector<std::string> files = torn_files(env, directory);
    while (files.size() > torn_files_max) {
        env.discard(files.front());
        files.erase(files.begin());
    }
    return files;
}

}  // namespace copycat
