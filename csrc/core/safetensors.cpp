#include "core/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "core/json.h"

namespace lewm {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct DTypeName {
  std::string_view name;
  DType dtype;
  std::int64_t bytes;
};
constexpr DTypeName kDTypes[] = {
    {"F32", DType::f32, 4}, {"F16", DType::f16, 2},      {"BF16", DType::bf16, 2}, {"F64", DType::f64, 8},
    {"I64", DType::i64, 8}, {"I32", DType::i32, 4},      {"I16", DType::i16, 2},   {"I8", DType::i8, 1},
    {"U8", DType::u8, 1},   {"BOOL", DType::boolean, 1},
};

std::uint64_t little_endian_u64(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) value |= std::uint64_t{bytes[i]} << (8 * i);
  return value;
}

// One tensor's entry, and where its bytes lie in the data section.
struct Entry {
  std::string_view name;
  TensorView view;
  std::int64_t begin = 0, end = 0;
};

// What is wrong with a tensor; the caller adds the file and the tensor's name.
struct Defect {
  std::string what;
};

std::vector<std::int64_t> read_sizes(const json::Value& entry, std::string_view field) {
  const json::Value* value = entry.find(field);
  const auto* elements = value ? value->array() : nullptr;
  if (!elements) throw Defect{std::string(field) + ": expected an array of integers"};
  std::vector<std::int64_t> sizes;
  for (const json::Value& element : *elements) {
    const auto size = element.integer();
    if (!size || *size < 0) throw Defect{std::string(field) + ": expected integers of at least 0"};
    sizes.push_back(*size);
  }
  return sizes;
}

const DTypeName& read_dtype(const json::Value& entry) {
  const json::Value* value = entry.find("dtype");
  const std::string* name = value ? value->string() : nullptr;
  if (!name) throw Defect{"dtype: expected a string"};
  for (const DTypeName& known : kDTypes) {
    if (known.name == *name) return known;
  }
  throw Defect{"dtype: expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL, got " + json::quote(*name)};
}

std::int64_t checked_bytes(const std::vector<std::int64_t>& shape, std::int64_t item_bytes) {
  std::int64_t bytes = item_bytes;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) throw Defect{"shape: too many elements"};
  }
  return bytes;
}

Entry read_entry(std::string_view name, const json::Value& value, std::int64_t data_bytes) {
  if (!value.object()) throw Defect{std::string("expected an object, got ") + json::kind_name(value.kind())};
  const DTypeName& dtype = read_dtype(value);
  Entry entry;
  entry.name = name;
  entry.view.dtype = dtype.dtype;
  entry.view.shape = read_sizes(value, "shape");
  const std::vector<std::int64_t> offsets = read_sizes(value, "data_offsets");
  if (offsets.size() != 2) throw Defect{"data_offsets: expected [begin, end]"};
  entry.begin = offsets[0];
  entry.end = offsets[1];
  const auto range = "[" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
  if (entry.begin > entry.end) throw Defect{"data_offsets: " + range + " ends before it begins"};
  if (entry.end > data_bytes) {
    throw Defect{"data_offsets: " + range + " reaches beyond the " + std::to_string(data_bytes) + " bytes of data"};
  }
  const std::int64_t bytes = checked_bytes(entry.view.shape, dtype.bytes);
  if (bytes != entry.end - entry.begin) {
    throw Defect{"data_offsets: expected " + std::to_string(bytes) + " bytes for its shape and dtype, got " +
                 std::to_string(entry.end - entry.begin)};
  }
  return entry;
}

}  // namespace

void SafetensorsFile::fail(const std::string& what) const { throw Error(Status::bad_file, path_ + ": " + what); }

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  open_file();
  try {
    read_header();
  } catch (...) {
    close(file_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { close(file_); }

void SafetensorsFile::open_file() {
  file_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) {
    const Status status = errno == ENOENT || errno == ENOTDIR ? Status::file_not_found : Status::bad_file;
    throw Error(status, path_ + ": " + std::strerror(errno));
  }
  struct stat info {};
  std::string defect;
  if (fstat(file_, &info) != 0) {
    defect = std::strerror(errno);
  } else if (!S_ISREG(info.st_mode)) {
    defect = S_ISDIR(info.st_mode) ? "expected a file, got a directory" : "expected a regular file";
  } else if (info.st_size < static_cast<off_t>(kLengthBytes)) {
    defect = "expected a safetensors file, got " + std::to_string(info.st_size) + " bytes";
  }
  if (!defect.empty()) {
    close(file_);
    fail(defect);
  }
  bytes_ = static_cast<std::uint64_t>(info.st_size);
  modified_ = info.st_mtim;
}

// A file on disk may shrink and a disk may fail at any moment: with read() that is an error, with a mapping a signal.
void SafetensorsFile::read_bytes(std::uint64_t offset, void* to, std::size_t bytes) const {
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t n = pread(file_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n == 0) fail("ends at byte " + std::to_string(offset + done) + ": truncated while it was being read");
    if (n < 0 && errno != EINTR) fail(std::string("could not be read: ") + std::strerror(errno));
    if (n > 0) done += static_cast<std::size_t>(n);
  }
}

void SafetensorsFile::check_unchanged() const {
  struct stat info {};
  if (fstat(file_, &info) != 0) fail(std::strerror(errno));
  if (static_cast<std::uint64_t>(info.st_size) != bytes_ || info.st_mtim.tv_sec != modified_.tv_sec ||
      info.st_mtim.tv_nsec != modified_.tv_nsec) {
    fail("changed while it was being read; write a new file and rename it over this one");
  }
}

void SafetensorsFile::read(std::string_view name, std::size_t offset, void* to, std::size_t bytes) const {
  read_bytes(tensors_.find(name)->second.begin + offset, to, bytes);
}

void SafetensorsFile::read_header() {
  std::uint8_t length[kLengthBytes];
  read_bytes(0, length, kLengthBytes);
  const std::uint64_t header_bytes = little_endian_u64(length);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes_ - kLengthBytes) {
    fail("the header claims " + std::to_string(header_bytes) + " bytes of a file of " + std::to_string(bytes_));
  }
  std::string text(header_bytes, '\0');
  read_bytes(kLengthBytes, text.data(), text.size());
  if (text.empty() || text[0] != '{') fail("the header does not start with '{'");
  const std::uint64_t data_begin = kLengthBytes + header_bytes;
  const auto data_bytes = static_cast<std::int64_t>(bytes_ - data_begin);

  std::optional<json::Value> header;
  try {
    header = json::parse(text);
  } catch (const Error& e) {
    fail(std::string("header: ") + e.what());
  }

  std::vector<Entry> entries;
  for (const auto& [name, value] : *header->object()) {
    if (name == "__metadata__") {
      if (!value.object()) fail("__metadata__: expected an object");
      for (const auto& [key, text_value] : *value.object()) {
        if (!text_value.string()) fail("__metadata__: " + json::quote(key) + ": expected a string");
        metadata_.emplace(key, *text_value.string());
      }
      continue;
    }
    try {
      entries.push_back(read_entry(name, value, data_bytes));
    } catch (const Defect& defect) {
      fail("tensor " + json::quote(name) + ": " + defect.what);
    }
  }

  // The format: sorted by offset, tensors follow each other without overlap or hole, up to the end of the file.
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::int64_t position = 0;
  for (Entry& entry : entries) {
    if (entry.begin != position) {
      fail("tensor " + json::quote(entry.name) + ": data_offsets: begins at " + std::to_string(entry.begin) + ", " +
           (entry.begin < position ? "inside another tensor" : "after a hole") + ": expected " +
           std::to_string(position));
    }
    position = entry.end;
    tensors_.emplace(entry.name, Stored{std::move(entry.view), data_begin + static_cast<std::uint64_t>(entry.begin)});
  }
  if (position != data_bytes) {
    fail("expected " + std::to_string(position) + " bytes of data, got " + std::to_string(data_bytes));
  }
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second.view;
}

std::vector<std::string_view> SafetensorsFile::names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const auto& entry : tensors_) names.push_back(entry.first);
  return names;
}

const std::string* SafetensorsFile::metadata(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

}  // namespace lewm
