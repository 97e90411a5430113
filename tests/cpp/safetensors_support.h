// Writes safetensors files, correct and broken, for tests.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

#include "core/json.h"
#include "model/tensors.h"

namespace safetensors_test {

// A file that is removed when the test is over.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& contents) {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder ? folder : "/tmp") + "/lewm_test_XXXXXX";
    const int file = mkstemp(path_.data());
    if (file < 0) throw std::runtime_error("mkstemp: " + path_);
    const auto written = ::write(file, contents.data(), contents.size());
    ::close(file);
    if (written != static_cast<ssize_t>(contents.size())) throw std::runtime_error("write: " + path_);
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string length_bytes(std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i));
  return bytes;
}

// A file of this header and data, with the header's true length in front.
inline std::string file_of(const std::string& header, const std::string& data) {
  return length_bytes(header.size()) + header + data;
}

// A correct file of float tensors.
inline std::string serialise(const lewm::TensorSource& tensors, const std::map<std::string, std::string>& metadata) {
  std::string header = "{\"__metadata__\": {", data;
  for (const auto& [key, value] : metadata) {
    header += (header.back() == '{' ? "" : ", ") + lewm::json::quote(key) + ": " + lewm::json::quote(value);
  }
  header += "}";
  for (const std::string_view name : tensors.names()) {
    const lewm::TensorView& view = *tensors.find(name);
    std::string shape;
    std::size_t bytes = sizeof(float);
    for (const std::int64_t size : view.shape) {
      shape += (shape.empty() ? "" : ", ") + std::to_string(size);
      bytes *= static_cast<std::size_t>(size);
    }
    header += ", " + lewm::json::quote(name) + ": {\"dtype\": \"F32\", \"shape\": [" + shape +
              "], \"data_offsets\": [" + std::to_string(data.size()) + ", " + std::to_string(data.size() + bytes) +
              "]}";
    data.append(static_cast<const char*>(view.data), bytes);
  }
  return file_of(header + "}", data);
}

}  // namespace safetensors_test
