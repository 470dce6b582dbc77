#include "manifest.hpp"

#include <algorithm>
#include <charconv>

#include "crc32c.hpp"

namespace copycat {
namespace {

constexpr std::size_t crc_from = 16;
// Ids and generations never reach this: a larger number is in no name of the log.
constexpr std::uint64_t max_number = std::uint64_t{1} << 62;

ManifestRow stored(const Row& row) {
    ManifestRow out{};
    std::copy(row.uuid.begin(), row.uuid.end(), out.uuid);
    out.id = row.id;
    out.version = row.version;
    out.flags = (row.sealed ? row_flag_sealed : 0) | (row.packed ? row_flag_packed : 0);
    out.first_index = row.first_index;
    out.last_index = row.sealed ? row.last_index : 0;
    out.end_offset = row.sealed ? row.end_offset : 0;
    out.prev_term = row.prev_term;
    out.valid_from = row.sealed ? row.valid_from : 0;
    return out;
}

Row loaded(const ManifestRow& in) {
    Row row;
    std::copy(std::begin(in.uuid), std::end(in.uuid), row.uuid.begin());
    row.id = in.id;
    row.version = in.version;
    row.sealed = (in.flags & row_flag_sealed) != 0;
    row.packed = (in.flags & row_flag_packed) != 0;
    row.first_index = in.first_index;
    row.prev_term = in.prev_term;
    row.valid_from = row.sealed ? in.valid_from : 0;
    row.last_index = row.sealed ? in.last_index : in.first_index - 1;
    row.end_offset = row.sealed ? in.end_offset : segment_data_offset;
    return row;
}

std::uint32_t version_of(const Manifest& manifest) {
    const bool has_packed = std::any_of(manifest.rows.begin(), manifest.rows.end(),
                                        [](const Row& row) { return row.packed; });
    return has_packed ? packed_format_version : format_version;
}

// Checked both when a manifest is written and when it is read.
const char* broken_law(const Manifest& manifest) {
    if (manifest.next_id > max_number || manifest.generation > max_number)
        return "it counts out of bounds";
    for (std::size_t i = 0; i < manifest.rows.size(); ++i) {
        const Row& row = manifest.rows[i];
        if (row.first_index == 0) return "a segment begins at index 0";
        if (row.id == 0 || row.id >= manifest.next_id) return "a segment id was never given out";
        if (row.end_offset < segment_data_offset) return "a segment ends inside its header";
        if (row.end_offset > max_file_size) return "a segment ends beyond 32 bits";
        if (!row.sealed && i + 1 != manifest.rows.size()) return "an inner segment is not sealed";
        if (row.packed && !row.sealed) return "a packed segment is not sealed";
        if (row.sealed && row.last_index < row.first_index) return "a sealed segment is empty";
        if (row.last_index > max_index || row.first_index > max_index)
            return "a segment counts out of bounds";
        if (i == 0) continue;
        const Row& before = manifest.rows[i - 1];
        if (row.id <= before.id) return "segment ids do not grow";
        if (row.first_index != before.last_index + 1) return "segments do not meet";
    }
    if (!manifest.rows.empty() && manifest.rows.back().sealed) return "no segment is open";
    return nullptr;
}

std::string hex(const Uuid& uuid) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : uuid) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

template <typename T>
bool parse_number(std::string_view text, T& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc{} && end == text.data() + text.size() && !text.empty() &&
           out < max_number / 2;
}

}  // namespace

Bytes encode_header(const Row& row, std::uint64_t max_entries, std::uint64_t max_size) {
    SegmentHeader header{};
    header.magic = segment_magic;
    header.format_version = format_version;
    std::copy(row.uuid.begin(), row.uuid.end(), header.uuid);
    header.id = row.id;
    header.version = row.version;
    header.max_entries = static_cast<std::uint32_t>(max_entries);
    header.first_index = row.first_index;
    header.max_size = max_size;
    Bytes bytes(sizeof header);
    store(bytes.data(), header);
    header.crc = crc32c(View(bytes).subspan(crc_from));
    store(bytes.data(), header);
    return bytes;
}

Bytes encode_manifest(const Manifest& manifest) {
    const char* law = broken_law(manifest);
    require(law == nullptr, law == nullptr ? "" : law);
    ManifestHeader header{};
    header.magic = manifest_magic;
    header.format_version = version_of(manifest);
    header.generation = manifest.generation;
    header.next_id = manifest.next_id;
    header.rows = static_cast<std::uint32_t>(manifest.rows.size());
    Bytes bytes(sizeof header + manifest.rows.size() * sizeof(ManifestRow));
    std::uint8_t* to = bytes.data() + sizeof header;
    for (const Row& row : manifest.rows) {
        store(to, stored(row));
        to += sizeof(ManifestRow);
    }
    store(bytes.data(), header);
    header.crc = crc32c(View(bytes).subspan(crc_from));
    store(bytes.data(), header);
    return bytes;
}

Manifest decode_manifest(View bytes, const std::string& path) {
    const auto corrupt = [&](const std::string& what) {
        throw CorruptError("manifest " + path + " is corrupt: " + what, path, 0);
    };
    if (bytes.size() < sizeof(ManifestHeader)) corrupt("it is shorter than its header");
    const auto header = load<ManifestHeader>(bytes.data());
    if (header.magic != manifest_magic) corrupt("wrong magic number");
    if (header.format_version != format_version && header.format_version != packed_format_version)
        throw FormatError("manifest " + path + " has format version " +
                              std::to_string(header.format_version) + "; this build reads " +
                              std::to_string(format_version) + " and " +
                              std::to_string(packed_format_version),
                          path, 8);
    if (crc32c(bytes.subspan(crc_from)) != header.crc) corrupt("its checksum does not fit");
    if (bytes.size() != sizeof header + std::size_t{header.rows} * sizeof(ManifestRow))
        corrupt("its size does not fit its number of rows");
    Manifest manifest;
    manifest.generation = header.generation;
    manifest.next_id = header.next_id;
    for (std::size_t i = 0; i < header.rows; ++i)
        manifest.rows.push_back(
            loaded(load<ManifestRow>(bytes.data() + sizeof header + i * sizeof(ManifestRow))));
    if (const char* law = broken_law(manifest)) corrupt(law);
    if (version_of(manifest) != header.format_version)
        corrupt("its format version does not fit its rows");
    return manifest;
}

TempManifest create_temp_manifest(Env& env, const std::string& directory) {
    Uuid uuid{};
    env.random(MutableView(uuid));
    TempManifest temp{spare_path(directory, uuid), nullptr};
    temp.file = env.create(temp.path);
    return temp;
}

void replace_manifest(Env& env, const std::string& path, Directory& directory, TempManifest& temp,
                      View bytes) {
    if (temp.file == nullptr) temp = create_temp_manifest(env, parent_of(path));
    or_undo(
        [&] {
            temp.file->pwrite(0, bytes);
            temp.file->fsync();
            env.rename(temp.path, path);
        },
        [&] {  // its bytes are written once: the next call creates another
            env.discard(temp.path);
            temp.file.reset();
        });
    temp.file.reset();
    directory.sync();
}

std::string manifest_path(const std::string& directory) { return join(directory, "manifest"); }

std::string segment_path(const std::string& directory, std::uint64_t id, std::uint32_t version) {
    return join(directory, std::to_string(id) + "-" + std::to_string(version) + ".log");
}

std::string index_path(const std::string& directory, std::uint64_t id, std::uint32_t version) {
    return join(directory, std::to_string(id) + "-" + std::to_string(version) + ".idx");
}

std::string pending_path(const std::string& directory, std::uint64_t generation) {
    return join(directory, "manifest-" + std::to_string(generation) + ".pending");
}

std::string spare_path(const std::string& directory, const Uuid& uuid) {
    return join(directory, hex(uuid) + ".spare");
}

FileName parse_name(std::string_view name) {
    if (name == "manifest") return {FileRole::manifest, 0, 0};
    if (name == "manifest.new") return {FileRole::leftover, 0, 0};
    const std::size_t dot = name.rfind('.');
    if (dot == std::string_view::npos) return {};
    const std::string_view stem = name.substr(0, dot);
    const std::string_view suffix = name.substr(dot);
    if (suffix == ".spare") {
        const bool ours = stem.size() == 32 &&
                          stem.find_first_not_of("0123456789abcdef") == std::string_view::npos;
        return {ours ? FileRole::leftover : FileRole::other, 0, 0};
    }
    if (suffix == ".pending") {
        constexpr std::string_view prefix = "manifest-";
        FileName out;
        if (!stem.starts_with(prefix)) return out;
        if (parse_number(stem.substr(prefix.size()), out.id)) out.role = FileRole::pending;
        return out;
    }
    if (suffix != ".log" && suffix != ".idx") return {};
    const std::size_t dash = stem.find('-');
    if (dash == std::string_view::npos) return {};
    FileName out;
    if (!parse_number(stem.substr(0, dash), out.id)) return {};
    if (!parse_number(stem.substr(dash + 1), out.version)) return {};
    out.role = suffix == ".log" ? FileRole::segment : FileRole::index;
    return out;
}

}  // namespace copycat
