// The manifest names the files of the log (C8). It is replaced as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "env.hpp"
#include "format.hpp"

namespace copycat {

inline constexpr std::uint32_t first_version = 1;

// The identity of a segment, and which part of its file belongs to the log.
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

// The header of the segment `row`.
Bytes encode_header(const Row& row, std::uint64_t max_entries, std::uint64_t max_size);

Bytes encode_manifest(const Manifest& manifest);
// Decodes a manifest, and checks that its rows are contiguous, that ids grow, and that only the
// last row is not sealed. CorruptError, FormatError.
Manifest decode_manifest(View bytes, const std::string& path);

// The file of the next manifest. It is created before the log changes, so that the sync which
// makes the change durable needs no further file.
struct TempManifest {
    std::string path;
    std::shared_ptr<File> file;
};
// Creates such a file. Its name is that of a spare, which recovery deletes. ResourceError,
// DiskFullError.
TempManifest create_temp_manifest(Env& env, const std::string& directory);
// Writes `bytes` into the file of `temp`, which is created if there is none, syncs it, renames it
// to the manifest, and syncs `directory`. After a ResourceError the old manifest is in place, and
// the call may be repeated.
void replace_manifest(Env& env, const std::string& path, Directory& directory, TempManifest& temp,
                      View bytes);

std::string manifest_path(const std::string& directory);
std::string segment_path(const std::string& directory, std::uint64_t id, std::uint32_t version);
std::string index_path(const std::string& directory, std::uint64_t id, std::uint32_t version);
// A pending manifest (see SegmentedLog::create_pending_manifest), which need not be durable: there
// is one file per generation, and none is ever replaced.
std::string pending_path(const std::string& directory, std::uint64_t generation);
std::string spare_path(const std::string& directory, const Uuid& uuid);

// What a file in the directory is to the log, by its name. The log never touches `other` files
// (F4).
enum class FileRole { other, manifest, pending, segment, index, leftover };
struct FileName {
    FileRole role = FileRole::other;
    std::uint64_t id = 0;  // of a pending manifest: its generation
    std::uint32_t version = 0;
};
FileName parse_name(std::string_view name);

}  // namespace copycat
