// A safetensors file: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/tensors.h"

namespace lewm {

// A file whose header has been checked in full: sizes, JSON, names, dtypes, shapes and offsets. It is read piece by
// piece, not mapped: a file that somebody truncates meanwhile, or a disk that fails, is an Error and not a SIGBUS.
// Views have no data of their own; they die with this object.
class SafetensorsFile : public TensorSource {
 public:
  // Throws Error(file_not_found), or Error(bad_file) naming the file and, where there is one, the tensor.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile() override;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const TensorView* find(std::string_view name) const override;
  std::vector<std::string_view> names() const override;  // sorted
  // Throws Error(bad_file) where the file ends early or cannot be read.
  void read(std::string_view name, std::size_t offset, void* to, std::size_t bytes) const override;
  // Throws Error(bad_file) if the file was written to since it was opened. (Another one renamed over it is no matter.)
  void check_unchanged() const;
  // The value of a __metadata__ key; null when there is none.
  const std::string* metadata(std::string_view key) const;
  const std::string& path() const { return path_; }

 private:
  struct Stored {
    TensorView view;
    std::uint64_t begin;  // offset in the file
  };
  void open_file();
  void read_header();
  void read_bytes(std::uint64_t offset, void* to, std::size_t bytes) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  int file_ = -1;
  std::uint64_t bytes_ = 0;
  timespec modified_{};
  std::map<std::string, Stored, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace lewm
