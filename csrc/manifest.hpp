// The manifest: which files are the log (C8). Replaced whole, never edited.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "env.hpp"
#include "format.hpp"

namespace copycat {

inline constexpr std::uint32_t first_version = 1;

// Who a segment is and what of its file belongs to the log.
struct Row {
    Uuid uuid{};
    std::uint64_t id = 0;
    std::uint32_t version = first_version;  // grows with each compaction
    bool sealed = false;
    bool packed = false;  // its file is a packed segment (csrc/packed.hpp)
    std::uint64_t first_index = 1;
    std::uint64_t last_index = 0;                    // first_index - 1 when empty
    std::uint64_t end_offset = segment_data_offset;  // in the plain file, also when packed
    std::uint64_t prev_term = 0;
    std::uint64_t valid_from = 0;  // the largest of its gaps (C22)
};

struct Manifest {
    std::uint64_t generation = 0;
    std::uint64_t next_id = 1;
    std::vector<Row> rows;
};

// The first bytes of the segment that `row` names.
Bytes encode_header(const Row& row, std::uint64_t max_entries, std::uint64_t max_size);

Bytes encode_manifest(const Manifest& manifest);
// CorruptError, FormatError. Checks the laws of a log too: rows are contiguous, ids grow, only
// the last may be unsealed.
Manifest decode_manifest(View bytes, const std::string& path);

// The file that becomes the next manifest: made before the log changes, so that the sync which
// brings the change to the disk finds all that it needs of the system.
struct Aside {
    std::string path;
    std::shared_ptr<File> file;
};
// Named like a spare: nothing needs it after a crash. ResourceError, DiskFullError.
Aside make_aside(Env& env, const std::string& directory);
// Writes and syncs it, and makes it the manifest; `directory` is synced as well. Made here when
// it is not yet. After a ResourceError the old manifest counts, and a second call may follow.
void replace_manifest(Env& env, const std::string& path, Directory& directory, Aside& aside,
                      View bytes);

std::string manifest_path(const std::string& directory);
std::string segment_path(const std::string& directory, std::uint64_t id, std::uint32_t version);
std::string index_path(const std::string& directory, std::uint64_t id, std::uint32_t version);
// A manifest that is not durable yet (see SegmentedLog::begin_note): never replaced, one file a
// generation.
std::string pending_path(const std::string& directory, std::uint64_t generation);
std::string spare_path(const std::string& directory, const Uuid& uuid);

// What a name in the directory is to the log. Anything else is not ours to touch (F4).
enum class FileRole { other, manifest, pending, segment, index, leftover };
struct FileName {
    FileRole role = FileRole::other;
    std::uint64_t id = 0;  // of a pending manifest: its generation
    std::uint32_t version = 0;
};
FileName parse_name(std::string_view name);

}  // namespace copycat
